"""The record of a finished run of recipes/studies/*.toml: its comparison with the machine it ran on, and the picture of docs.

    abruzzi run recipes/studies/sparsity.toml --wait
    python bench/studies.py RUN --out bench/results/study_sparsity.json --picture docs/images/study-sparsity.svg

With `--study sparsity` the trainings of one or several runs are compared here, as its last stage would: for a study that was ended and gone on with in
another run. Budgets that not all arms have are left out, and named.

What is measured are losses and shares of right answers, which do not depend on how busy the machine is; the seconds are only how long it took.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from interleaved import machine, report

from abruzzi.client import Client
from abruzzi.contracts.recipe import ContainerStage
from abruzzi.contracts.states import ArtifactKind, StageState
from abruzzi.contracts.toml import load_recipe
from abruzzi_jobs.evals.comparison.__main__ import drawn, parse
from abruzzi_jobs.evals.comparison.claims import judged
from abruzzi_jobs.evals.comparison.findings import findings
from abruzzi_jobs.evals.comparison.losses import compare_losses
from abruzzi_jobs.evals.comparison.trainings import DATASET, STATE_FILE, training_of

RECIPES = Path(__file__).parents[1] / "recipes" / "studies"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="+")
    parser.add_argument("--study", choices=("sparsity", "heads", "optimizers"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    with Client() as connection:
        runs = [connection.runs.get(run) for run in arguments.run]
        comparison = _here(connection, arguments) if arguments.study else _of_stage(connection, runs[-1].id)
    files = drawn(comparison)
    result = {
        "bench": "studies",
        "runs": [
            {
                "id": run.id, "recipe": run.recipe_name, "state": run.state, "stages": len(run.stages),
                "seconds": (run.ended_at - run.started_at).total_seconds() if run.ended_at and run.started_at else None,
            }
            for run in runs
        ],
        "machine": machine(threads=1),
        "comparison": comparison,
    }  # fmt: skip
    report(result, out=arguments.out)
    if arguments.picture is not None:
        arguments.picture.write_text(files["svg"], encoding="utf-8")
    sys.stderr.write(files["md"] + "\n")
    return 0


def _of_stage(connection: Client, run_id: str) -> dict[str, Any]:
    (made,) = [a for a in connection.artifacts.list(run_id, kind=ArtifactKind.FILES) if a.stage_id == "compare"]
    return json.loads(connection.artifacts.read(made.id, "comparison.json"))


def _here(connection: Client, arguments: argparse.Namespace) -> dict[str, Any]:
    """Of the study's trainings among the runs; attention logits, which need the weights, are not looked at."""
    compare = load_recipe((RECIPES / f"{arguments.study}.toml").read_text(encoding="utf-8")).stage_by_id("compare")
    assert isinstance(compare, ContainerStage)
    labels = {key: label for key, label, _ in parse(list(compare.container.command[3:])).arm}
    made: dict[str, str] = {}
    for run in map(connection.runs.get, arguments.run):
        done = {stage.id for stage in run.detail if stage.state is StageState.SUCCEEDED}
        checkpoints = connection.artifacts.list(run.id, kind=ArtifactKind.CHECKPOINT)
        made |= {a.stage_id: a.id for a in checkpoints if a.stage_id in done}
    stages = {name: ref.partition(".")[0] for name, ref in compare.inputs.items() if name != DATASET}
    left_out = {name.split(".")[1] for name, stage in stages.items() if stage not in made}
    found = [
        training_of(name, json.loads(connection.artifacts.read(made[stage], STATE_FILE)))
        for name, stage in stages.items()
        if name.split(".")[1] not in left_out
    ]
    comparison = compare_losses(labels, found)
    finding = findings()[arguments.study]
    told = finding.model_dump(mode="json", include={"title", "section", "finding", "conditions"})
    return comparison | {
        "title": finding.title, "published": finding.published, "study": {"key": arguments.study, **told},
        "claims": judged(finding, comparison), "left_out_budgets": sorted(left_out),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
