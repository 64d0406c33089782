"""Picture of bench/rl_curves.py: a panel for each comparison whose first arm has been run, with those of its others that have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from abruzzi_jobs.evals.intervals import student

PANELS: tuple[tuple[str, str, tuple[tuple[str, str, str], ...]], ...] = (
    ("verifiable maths", "mean reward", (("maths", "alone", "rl/reward"), ("maths-ptx", "with PTX", "rl/reward"))),
    ("tool use", "mean reward", (("tools", "one call, and its result said", "rl/reward"),)),
    ("instruction following", "mean reward", (("instructions", "at the others' rate", "rl/reward"), ("speech-slow", "at a sixth of it", "rl/reward"))),
    (
        "a reward that can be had by saying more", "policy's tokens an answer",
        (("budget", "budget of 4", "rl/length/policy_tokens"), ("budget-none", "no budget", "rl/length/policy_tokens")),
    ),
    (
        "beside a rubric reward, biased critic", "mean reward of verified tasks",
        (("rubric-alone", "no refinement", "rl/reward/comparison"), ("rubric-refined", "refinement and gate", "rl/reward/comparison")),
    ),
)  # fmt: skip
"""(title, axis, (arm, label, key))."""
COLORS = ("#1d4ed8", "#c2410c", "#15803d")


def draw(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "rl-curves"
    from matplotlib import pyplot

    shown = [panel for panel in PANELS if panel[2][0][0] in result["arms"]]
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(5.2 * columns, 4.0 * rows), squeeze=False)
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    for axis, (title, name, lines) in zip(axes.flat, shown, strict=False):
        for color, (arm, label, key) in zip(COLORS, lines, strict=False):
            if arm not in result["arms"]:
                continue
            curves = [
                {int(step): value for step, value in curve[key].items()} for curve in result["arms"][arm]["curves"]
            ]
            steps = sorted(set.intersection(*map(set, curves)))
            points = [student([curve[step] for curve in curves]) for step in steps]
            axis.plot(
                steps, [p.value for p in points], color=color, linewidth=1.5, label=f"{label} ({len(curves)} seeds)"
            )
            axis.fill_between(
                steps, [p.low for p in points], [p.high for p in points], color=color, alpha=0.14, linewidth=0
            )
        axis.set(title=title, xlabel="iteration", ylabel=name)
        if "reward" in name:
            axis.set_ylim(-0.55, 1.05)
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, fontsize=8)
    figure.suptitle("rl stage, 95 % intervals of the mean over seeds", fontsize=11)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
