"""`abruzzi-stage` that is killed (SIGKILL, by itself) after so many things have happened: writes to the object store, before and after each, engine
steps, heartbeats. A random number is then a random point of its life, however busy the machine is. Environment: KILL_AFTER."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from abruzzi.client.stage import Reporter
from abruzzi.store import DirectoryStore
from abruzzi_jobs.entrypoints.main import main
from abruzzi_jobs.rl.engine.torch_engine import TorchEngine

left = int(os.environ["KILL_AFTER"])


def pulse() -> None:
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)


def deadly(owner: type, name: str) -> None:
    inner: Callable[..., Any] = getattr(owner, name)

    def outer(*given: Any, **named: Any) -> Any:
        pulse()
        found = inner(*given, **named)
        pulse()
        return found

    setattr(owner, name, outer)


if __name__ == "__main__":
    for owner, names in (
        (DirectoryStore, ("put", "put_below", "put_if_absent", "delete")),
        (TorchEngine, ("step", "load_bucket", "finish_update")),
        (Reporter, ("heartbeat",)),
    ):
        for name in names:
            deadly(owner, name)
    main()
