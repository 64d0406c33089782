"""lm-eval's own command line, with our models: `python -m abruzzi_jobs.evals.harnesses.lm_eval run --model abruzzi-checkpoint --model_args …`."""

from __future__ import annotations

import sys

from lm_eval.__main__ import cli_evaluate

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.evals.harnesses import lm_eval_models

__all__ = ["lm_eval_models", "main"]


def main() -> int:
    try:
        cli_evaluate()
    except AbruzziError as error:
        sys.stderr.write(f"{error.message} {error.hint or ''}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
