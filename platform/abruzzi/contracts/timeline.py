"""When each pipeline rank computed what in one step: what a training stage keeps as `timeline.json`, in the planner's own form (`plan.scale.timeline`),
so that planned and measured are drawn alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TIMELINE_FILE = "timeline.json"
TimelineSpan = tuple[str, int, int, float, float]
"""(operation, stage, micro-batch, start, end): operation F, I or W, stage over all chunks of the model, seconds since the step's first forward. On CUDA the
host's: when it was done issuing it."""


@dataclass(frozen=True, slots=True)
class Timeline:
    step: int
    step_seconds: float
    """Of the whole step as the first rank saw it: the pipeline, the optimizer, and what lies between."""
    ranks: list[list[TimelineSpan]]
    """Of each pipeline rank of the first data rank, in the order in which they began. None of them is empty."""

    @property
    def seconds(self) -> float:
        return max(end for spans in self.ranks for *_, end in spans)

    @property
    def idle(self) -> float:
        """Share of the pipeline's time in which a rank computes nothing, on average."""
        busy = sum(end - start for spans in self.ranks for *_, start, end in spans)
        return 1 - busy / (self.seconds * len(self.ranks))

    def as_dict(self) -> dict[str, Any]:
        """What the file holds."""
        microbatches = 1 + max(microbatch for spans in self.ranks for _, _, microbatch, *_ in spans)
        return {
            "step": self.step,
            "step_seconds": round(self.step_seconds, 6),
            "seconds": round(self.seconds, 6),
            "idle": round(self.idle, 6),
            "microbatches": microbatches,
            "of": microbatches,
            "ranks": [[[op, stage, m, round(a, 6), round(b, 6)] for op, stage, m, a, b in rank] for rank in self.ranks],
        }

    def facts(self) -> dict[str, Any]:
        """For the artifact's manifest."""
        return {"timeline": "pipeline", "step_seconds": round(self.step_seconds, 6), "idle": round(self.idle, 6)}
