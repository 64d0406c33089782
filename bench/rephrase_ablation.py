"""The record of a finished run of recipes/rephrase-ablation.toml: its comparison with the machine it ran on, and the picture of docs.

    abruzzi run recipes/rephrase-ablation.toml --wait
    python bench/rephrase_ablation.py RUN --out bench/results/rephrase_ablation.json --picture docs/images/rephrase-ablation.svg

What is measured are shares of right answers, which do not depend on how busy the machine is; the seconds are only how long it took.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from interleaved import machine, report

from abruzzi.client import Client
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.evals.comparison.picture import svg
from abruzzi_jobs.evals.comparison.table import markdown

WORDS = {"title": "Rephrasing: the same facts, raw and rewritten", "published": "Kimi K2, SimpleQA"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    with Client() as connection:
        run = connection.runs.get(arguments.run)
        (made,) = [a for a in connection.artifacts.list(run.id, kind=ArtifactKind.FILES) if a.stage_id == "compare"]
        comparison = json.loads(connection.artifacts.read(made.id, "comparison.json"))
    seconds = (run.ended_at - run.started_at).total_seconds() if run.ended_at and run.started_at else None
    result = {
        "bench": "rephrase_ablation",
        "run": {"id": run.id, "recipe": run.recipe_name, "seconds": seconds, "stages": len(run.stages)},
        "machine": machine(threads=1),
        "comparison": comparison,
    }
    report(result, out=arguments.out)
    if arguments.picture is not None:
        arguments.picture.write_text(svg(comparison, **WORDS), encoding="utf-8")
    sys.stderr.write(markdown(comparison, **WORDS) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
