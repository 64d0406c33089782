"""`abruzzi-stage`: one rank of a built-in stage. The exit code is the stage contract's; the log's last line is a sentence for people."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from importlib import import_module

from pydantic import ValidationError

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.states import ExitCode

KINDS = ("corpus", "tokenize", "pretrain", "evaluate")
INTERNAL_ERROR = 70
"""A fault of ours: not in the contract, so the engine calls it unknown and retries within the budget."""

_BY_CODE = {
    "bad_data": ExitCode.BAD_DATA,
    "corrupt_artifact": ExitCode.TRY_AGAIN,
    "corrupt_manifest": ExitCode.TRY_AGAIN,
    "store_error": ExitCode.TRY_AGAIN,
    "divergence": ExitCode.DIVERGENCE,
    "preempted": ExitCode.PREEMPTED,
}
"""Every other AbruzziError is the user's to mend: 64."""


class Preempted(AbruzziError):
    """SIGTERM came, and what there was to save is saved."""

    def __init__(self, sentence: str) -> None:
        super().__init__("preempted", sentence)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    code = run()
    sys.stdout.flush()
    # A hanging thread of a library must not keep an ended rank alive.
    os._exit(code)


def run() -> int:
    """Exit code of the stage in the environment."""
    try:
        context = StageContext.from_env()
        context.install_signals()
    except AbruzziError as error:
        return _say(error)
    kind = context.spec.kind.value
    if kind not in KINDS:
        return _say(
            AbruzziError("unknown_kind", f"Stage kind {kind!r} is not built in.", hint=f"Built in: {', '.join(KINDS)}.")
        )
    with Reporter.from_context(context) as reporter:
        reporter.heartbeat(0, "setup", message="starting")
        try:
            import_module(f"abruzzi_jobs.entrypoints.{kind}").run(context, reporter)
        except AbruzziError as error:
            return _say(error)
        except ValidationError as error:
            return _say(AbruzziError("invalid_config", f"The stage's configuration does not fit this version: {error}"))
        except OSError as error:
            traceback.print_exc(file=sys.stdout)
            return _say(AbruzziError("store_error", f"{type(error).__name__}: {error}."))
        except Exception as error:
            traceback.print_exc(file=sys.stdout)
            logging.error(
                "%s: %s. This is a fault of the stage program; the traceback is above.", type(error).__name__, error
            )
            return INTERNAL_ERROR
    return ExitCode.OK


def _say(error: AbruzziError) -> int:
    logging.error("%s%s", error.message, f" {error.hint}" if error.hint else "")
    return _BY_CODE.get(error.code, ExitCode.USER_ERROR)


if __name__ == "__main__":
    main()
