"""`abruzzi-stage` with a rank that takes half a second longer for each step's own work. Environment: SLOW_RANK."""

from __future__ import annotations

import os
import time
from typing import Any

from abruzzi_jobs.entrypoints.main import main
from abruzzi_jobs.train.trainer import Trainer

_gradients = Trainer._gradients


def slowly(self: Trainer, *given: Any) -> Any:
    if os.environ["RANK"] == os.environ["SLOW_RANK"]:
        time.sleep(0.5)
    return _gradients(self, *given)


if __name__ == "__main__":
    Trainer._gradients = slowly
    main()
