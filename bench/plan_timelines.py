"""Picture of bench/plan_calibration.py's timelines: what each pipeline rank computes when, as planned from the measured table, and as it was done.

python bench/plan_timelines.py bench/results/plan_calibration.json docs/images/plan-timelines.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

COLORS = {"F": "#1d4ed8", "I": "#c2410c", "W": "#15803d"}
NAMES = {"F": "forward", "I": "gradient of the input", "W": "gradient of the weights"}


def draw(result: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    timelines = {
        name: {kind: [[_span(text) for text in of] for of in ranks] for kind, ranks in both.items()}
        for name, both in result["timelines"].items()
    }
    heights = [len(both[kind]) for both in timelines.values() for kind in ("planned", "measured")]
    figure, axes = pyplot.subplots(
        len(heights), 1, figsize=(11, 0.9 * len(heights) + 0.42 * sum(heights)), squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    rows = iter(axes.flat)
    for name, both in timelines.items():
        longest = max(span[4] for kind in ("planned", "measured") for of in both[kind] for span in of)
        for kind in ("planned", "measured"):
            axis, ranks = next(rows), both[kind]
            for rank, spans in enumerate(ranks):
                for op, stage, microbatch, start, end in spans:
                    paler = 1 - 0.45 * (stage // len(ranks))
                    axis.barh(rank, end - start, left=start, height=0.84, color=COLORS[op], alpha=paler, edgecolor="white", linewidth=0.4)  # fmt: skip
                    if op == "F" and end - start > longest / 60:
                        axis.text((start + end) / 2, rank, str(microbatch), ha="center", va="center", color="white", fontsize=6)  # fmt: skip
            axis.set(xlim=(0, longest), ylim=(len(ranks) - 0.5, -0.5), yticks=range(len(ranks)), ylabel="rank")
            seconds = max(span[4] for of in ranks for span in of)
            axis.set_title(f"{name}, {kind}: {seconds:.2f} s", fontsize=9, loc="left")
            axis.spines[["top", "right"]].set_visible(False)
    axes.flat[-1].set_xlabel("seconds")
    figure.legend(handles=[Patch(color=COLORS[op], label=name) for op, name in NAMES.items()], loc="upper right", ncols=3, frameon=False, fontsize=8)  # fmt: skip
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _span(text: str) -> tuple[str, int, int, float, float]:
    """As plan_calibration.py writes it: `2F3 0.0151 0.0349`."""
    action, start, end = text.split()
    op = next(letter for letter in action if letter.isalpha())
    stage, microbatch = action.split(op)
    return op, int(stage), int(microbatch), float(start), float(end)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
