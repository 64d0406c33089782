"""`abruzzi-stage` on a machine that flips the highest bit of the mantissa of one gradient, once. Environment: CORRUPT_AT (which of the passes over a batch)."""

from __future__ import annotations

import itertools
import os
from typing import Any

import torch

from abruzzi_jobs.entrypoints.main import main
from abruzzi_jobs.train.trainer import Trainer

_gradients, _passes = Trainer._gradients, itertools.count()


def corruptly(self: Trainer, *given: Any) -> Any:
    found = _gradients(self, *given)
    if next(_passes) == int(os.environ["CORRUPT_AT"]):
        gradient = next(parameter.grad for parameter in self.model.parameters() if parameter.grad is not None)
        largest = int(gradient.abs().argmax())
        gradient.view(-1)[largest : largest + 1].view(torch.int32).bitwise_xor_(1 << 22)
    return found


if __name__ == "__main__":
    Trainer._gradients = corruptly
    main()
