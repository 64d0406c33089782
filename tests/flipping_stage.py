"""`abruzzi-stage` on a machine that flips the lowest bit of a weight, once, in memory. Environment: FLIP_AFTER (steps that are done then), FLIP_RANK, and
FLIP_WHILE: `resting` (the default, after the update and all it looks at) or `updating` (before its sums are taken)."""

from __future__ import annotations

import os

import torch

from abruzzi_jobs.checkpoint.seal import Seal
from abruzzi_jobs.checkpoint.state import resident_of
from abruzzi_jobs.entrypoints.main import main
from abruzzi_jobs.train.training import Training

_look, _sealed = Training._look_at_held_out, Training._sealed


def flip(training: Training) -> None:
    if int(os.environ["RANK"]) == int(os.environ["FLIP_RANK"]):
        part = next(part for part in resident_of(training.model) if part.name.endswith("q_a_proj.weight"))
        print("flips a bit of", part.name, flush=True)
        with torch.no_grad():
            part.tensor.view(-1).view(torch.uint8)[:1].bitwise_xor_(1)


def look(self: Training) -> None:
    _look(self)
    if self.step == int(os.environ["FLIP_AFTER"]) and os.environ.get("FLIP_WHILE", "resting") == "resting":
        flip(self)


def sealed(self: Training) -> Seal | None:
    is_update = self._seal is not None and self.step == int(os.environ["FLIP_AFTER"])
    if is_update and os.environ.get("FLIP_WHILE") == "updating":
        os.environ["FLIP_WHILE"] = "done"
        flip(self)
    return _sealed(self)


if __name__ == "__main__":
    Training._look_at_held_out = look  # type: ignore[method-assign]
    Training._sealed = sealed  # type: ignore[method-assign]
    main()
