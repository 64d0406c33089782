"""The record of a finished run of recipes/studies/*.toml: its comparison with the machine it ran on, and the picture of docs.

    abruzzi run recipes/studies/sparsity.toml --wait
    python bench/studies.py RUN --out bench/results/study_sparsity.json --picture docs/images/study-sparsity.svg

What is measured are losses and shares of right answers, which do not depend on how busy the machine is; the seconds are only how long it took.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from interleaved import machine, report

from abruzzi.client import Client
from abruzzi.contracts.states import ArtifactKind


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    with Client() as connection:
        run = connection.runs.get(arguments.run)
        (made,) = [a for a in connection.artifacts.list(run.id, kind=ArtifactKind.FILES) if a.stage_id == "compare"]
        files = {end: connection.artifacts.read(made.id, f"comparison.{end}") for end in ("json", "md", "svg")}
    seconds = (run.ended_at - run.started_at).total_seconds() if run.ended_at and run.started_at else None
    result = {
        "bench": "studies",
        "run": {"id": run.id, "recipe": run.recipe_name, "seconds": seconds, "stages": len(run.stages)},
        "machine": machine(threads=1),
        "comparison": json.loads(files["json"]),
    }
    report(result, out=arguments.out)
    if arguments.picture is not None:
        arguments.picture.write_bytes(files["svg"])
    sys.stderr.write(files["md"].decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
