"""`abruzzi-stage` with a rank that takes longer for its own work: half a second more for a step's gradients; in a pipeline three times as long more for
each action. Environment: SLOW_RANK, SLOW_FROM (of a pipeline, the first such step; else all)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from abruzzi_jobs.distributed.pipeline import _Run
from abruzzi_jobs.entrypoints.main import main
from abruzzi_jobs.train.parallel import ParallelTrainer
from abruzzi_jobs.train.trainer import Trainer

_gradients, _step = Trainer._gradients, ParallelTrainer.step
_is_slow = False


def slowly(self: Trainer, *given: Any) -> Any:
    if os.environ["RANK"] == os.environ["SLOW_RANK"]:
        time.sleep(0.5)
    return _gradients(self, *given)


def noted(self: ParallelTrainer, step: int, *given: Any, **named: Any) -> Any:
    global _is_slow
    _is_slow = os.environ["RANK"] == os.environ["SLOW_RANK"] and step >= int(os.environ.get("SLOW_FROM", "0"))
    return _step(self, step, *given, **named)


def stretched(act: Callable[[_Run, int, int], None]) -> Callable[[_Run, int, int], None]:
    """By what it has just taken: so much more, however fast the machine is at the moment."""

    def acts(self: _Run, stage: int, m: int) -> None:
        watch = self._mesh.own_work
        before = watch.read()
        act(self, stage, m)
        if _is_slow:
            watch.stop()
            took = watch.read() - before
            watch.start()
            time.sleep(3 * took)

    return acts


if __name__ == "__main__":
    Trainer._gradients = slowly
    ParallelTrainer.step = noted  # type: ignore[method-assign]
    for name in ("_forward", "_inputs", "_weights"):
        setattr(_Run, name, stretched(getattr(_Run, name)))
    main()
