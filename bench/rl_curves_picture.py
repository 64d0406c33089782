"""Picture of bench/rl_curves.py: a panel for each comparison whose arms have all been run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from abruzzi_jobs.evals.intervals import student

PANELS: tuple[tuple[str, str, tuple[tuple[str, str, str], ...]], ...] = (
    ("verifiable maths", "mean reward", (("maths", "alone", "rl/reward"), ("maths-ptx", "with PTX", "rl/reward"))),
    ("instructions, tool use", "mean reward", (("instructions", "instructions", "rl/reward"), ("tools", "tools", "rl/reward"))),
    (
        "a reward that can be had by saying more", "policy's tokens an answer",
        (("budget", "budget of 4", "rl/length/policy_tokens"), ("budget-none", "no budget", "rl/length/policy_tokens")),
    ),
    (
        "rubric reward, biased critic", "truth of what the critic rewards",
        (("rubric-alone", "no refinement", "rl/component/environment"), ("rubric-refined", "refinement and gate", "rl/component/environment")),
    ),
)  # fmt: skip
"""(title, axis, (arm, label, key))."""
COLORS = ("#1d4ed8", "#c2410c", "#15803d")


def draw(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "rl-curves"
    from matplotlib import pyplot

    shown = [panel for panel in PANELS if all(arm in result["arms"] for arm, _, _ in panel[2])]
    figure, axes = pyplot.subplots(1, len(shown), figsize=(5.2 * len(shown), 4.0), squeeze=False)
    for axis, (title, name, lines) in zip(axes.flat, shown, strict=True):
        for color, (arm, label, key) in zip(COLORS, lines, strict=False):
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
        if "reward" in name or "truth" in name:
            axis.set_ylim(-0.55, 1.05)
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, fontsize=8)
    figure.suptitle("rl stage, 95 % intervals of the mean over seeds", fontsize=11)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
