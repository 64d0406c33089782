"""Retrieval inside and beyond the trained length, with YaRN and without: recipes/long-context.toml through the platform, and heat maps of what it answered.

    python bench/needle.py [--out bench/results/needle.json] [--picture docs/images/needle.png]
    python bench/needle.py --of bench/results/needle.json --picture docs/images/needle.png     # the picture alone

Shares of right answers do not depend on how busy the machine is; the seconds are only how long it took.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from interleaved import machine, report

from abruzzi.client import Client
from abruzzi.contracts.recipe import PretrainStage
from abruzzi.contracts.states import ArtifactKind, RunState
from abruzzi.contracts.toml import load_recipe
from abruzzi_jobs.data.row_shards import read_rows
from abruzzi_jobs.evals.suites.needle import heat_map
from abruzzi_operators.supervisor.embedded import EmbeddedPlatform

RECIPE = Path(__file__).parents[1] / "recipes" / "long-context.toml"
MAPS = {"needle": "as trained", "needle-yarn": "with YaRN"}
"""Stages of the recipe, and what the picture calls them."""


def main() -> int:
    options = _arguments()
    result = json.loads(options.of.read_text()) if options.of else measured(options.recipe)
    if options.picture is not None:
        draw(result, options.picture)
    if options.of is None:
        report(result, out=options.out)
    return 0


def measured(recipe: Path) -> dict[str, Any]:
    """Raises SystemExit where the run does not succeed."""
    text = recipe.read_text()
    stage = load_recipe(text).stage_by_id("pretrain")
    assert isinstance(stage, PretrainStage)
    schedule, batch = stage.schedule, stage.batch
    result: dict[str, Any] = {
        "bench": "needle",
        "recipe": f"recipes/{recipe.name}",
        "machine": machine(threads=0),
        "phases": [
            {"tokens": schedule.tokens, "sequence_length": batch.sequence_length, "sequences": batch.sequences},
            *(phase.model_dump(mode="json", exclude_none=True) for phase in schedule.anneal),
        ],
    }
    with (
        tempfile.TemporaryDirectory(prefix="needle-") as folder,
        EmbeddedPlatform(Path(folder) / "home") as platform,
        Client(platform.url, platform.token) as client,
    ):
        run = client.runs.wait(client.runs.submit(text, name="needle").id, on_change=_tell)
        if run.state is not RunState.SUCCEEDED:
            raise SystemExit(f"The run is {run.state}: {run.reason}")
        result["seconds"] = {
            s.id: round((s.ended_at - s.started_at).total_seconds(), 1)
            for s in run.detail
            if s.started_at and s.ended_at
        }
        (loss,) = client.metrics.series(run.id, ["train/loss"], max_points=60)
        result["loss"] = {int(step): round(value, 4) for step, value in zip(loss.steps, loss.values, strict=True)}
        for stage_id in MAPS:
            (made,) = client.artifacts.list(run.id, stage_id=stage_id, kind=ArtifactKind.REPORT)
            pulled = Path(folder) / stage_id
            client.artifacts.pull(made.id, pulled)
            (summary,) = json.loads((pulled / "suites.json").read_text())["suites"]
            result[stage_id] = {
                "suite": summary["suite"],
                "options": summary["settings"]["options"],
                "score": summary["score"],
                **heat_map(read_rows(pulled, "answers")),
            }
    return result


def _tell(run: Any) -> None:
    running = next((stage.id for stage in run.detail if stage.state == "running"), "")
    sys.stderr.write(f"\r{run.state} {running}\x1b[K")
    sys.stderr.flush()


def draw(result: dict[str, Any], path: Path) -> None:
    """A map for each way of turning positions; a line where training ended."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    longest = max(phase.get("sequence_length", 0) for phase in result["phases"])
    figure, axes = pyplot.subplots(1, len(MAPS), figsize=(5.0 * len(MAPS), 3.6), squeeze=False, layout="constrained")
    for axis, (stage, name) in zip(axes.flat, MAPS.items(), strict=True):
        found = result[stage]
        image = axis.imshow(found["right"], vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
        for row, shares in enumerate(found["right"]):
            for column, share in enumerate(shares):
                if share is not None:
                    axis.text(column, row, f"{share:.0%}", ha="center", va="center", fontsize=9)
        axis.set_xticks(range(len(found["tokens"])), [f"{tokens:,}" for tokens in found["tokens"]])
        axis.set_yticks(range(len(found["depths"])), [f"{depth} %" for depth in found["depths"]])
        axis.set(title=name, xlabel="tokens of the text", ylabel="depth of the needle")
        axis.axvline(sum(tokens <= longest for tokens in found["tokens"]) - 0.5, color="black", linewidth=1.5)
    figure.colorbar(image, ax=axes, label="right answers")
    texts, others = result["needle"]["texts_a_cell"], result["needle"]["options"].get("distractors", 3)
    figure.suptitle(
        f"{texts} texts a cell, {others} other pairs in each; trained on up to {longest:,} positions (black line)",
        fontsize=10,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--of", type=Path, help="A result of before: only the picture is drawn.")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
