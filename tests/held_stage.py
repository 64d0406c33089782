"""`abruzzi-stage` that stands still at a step, after the heartbeat that says so, until a file exists: a test's signal meets it there, however busy
the machine is. Environment: HOLD_AT (step), HOLD_UNTIL (file)."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from abruzzi.client.stage import Reporter
from abruzzi_jobs.entrypoints.main import main

HOLD_AT, HOLD_UNTIL = int(os.environ["HOLD_AT"]), Path(os.environ["HOLD_UNTIL"])


_heartbeat = Reporter.heartbeat


def heartbeat(self: Reporter, step: int, phase: str, **named: Any) -> None:
    _heartbeat(self, step, phase, **named)
    while step >= HOLD_AT and not HOLD_UNTIL.exists():
        self._write_beat()  # it may have been left out: there are ten a second at most
        time.sleep(0.01)


if __name__ == "__main__":
    Reporter.heartbeat = heartbeat
    main()
