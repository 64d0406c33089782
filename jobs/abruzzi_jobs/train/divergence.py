"""NaN and loss spikes: stop before the step that would poison the weights; the last good checkpoint stays."""

from __future__ import annotations

import json
import logging
import math
from typing import Any

from abruzzi.client.stage import StageContext
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.states import ArtifactKind
from abruzzi.store.resume import DATA_STEP, DIVERGENCE

logger = logging.getLogger(__name__)

_MEMORY = 0.98
_WARM_STEPS = 50
_SPIKE_NATS = 1.0
_SPIKE_DEVIATIONS = 8.0
_PATIENCE = 3


class DivergenceWatch:
    """A spike is a loss above its running mean by 1 nat and 8 standard deviations, three steps in a row."""

    def __init__(self) -> None:
        self.mean = self.variance = 0.0
        self.steps = 0
        self.high = 0

    def check(self, step: int, loss: float, grad_norm: float) -> None:
        """Raises AbruzziError `divergence` (exit code 76)."""
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            raise AbruzziError(
                "divergence",
                f"Step {step}: the loss is {loss}, the gradient norm {grad_norm}.",
                hint="A lower peak_lr or qk_clip_threshold helps.",
            )
        limit = self.mean + max(_SPIKE_NATS, _SPIKE_DEVIATIONS * math.sqrt(self.variance))
        self.high = self.high + 1 if self.steps >= _WARM_STEPS and loss > limit else 0
        if self.high >= _PATIENCE:
            raise AbruzziError(
                "divergence",
                f"Step {step}: the loss spiked to {loss:.3f}; it was {self.mean:.3f} on average.",
                hint="A lower peak_lr helps.",
            )
        if self.high == 0:
            weight = max(1 - _MEMORY, 1 / (self.steps + 1))
            delta = loss - self.mean
            self.mean += weight * delta
            self.variance = (1 - weight) * (self.variance + weight * delta * delta)
            self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "variance": self.variance, "steps": self.steps, "high": self.high}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.mean, self.variance = float(state["mean"]), float(state["variance"])
        self.steps, self.high = int(state["steps"]), int(state["high"])


def note_divergence(context: StageContext, error: AbruzziError, *, step: int, data_step: int) -> None:
    """For the next attempt: which data it came with. It goes back to an earlier checkpoint, and on with data from `data_step` on. One rank does it."""
    facts = {"diverged_at_step": step, DATA_STEP: data_step}
    note = context.scratch / "divergence.json"
    try:
        note.write_text(json.dumps({**facts, "message": error.message}), encoding="utf-8")
        context.commit(ArtifactKind.FILES, DIVERGENCE, {note.name: note}, facts, step)
    except (AbruzziError, OSError) as failed:
        logger.warning("The next attempt will be shown the same data again: %s", failed)
