"""Progress of a stage that computes in one go: heartbeats with an estimate of the time left, and an ear for SIGTERM."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.states import ArtifactKind

TELL_SECONDS = 0.5
LOG_SECONDS = 2.0

Log = Callable[[dict[str, float], int], None]
"""(metrics, step)"""


def now_and_then(reporter: Reporter, *, clock: Callable[[], float] = time.monotonic) -> Log:
    """`reporter.log` for callers that do not count the time: what comes within LOG_SECONDS of the last is passed over."""
    told_at = clock()

    def log(metrics: dict[str, float], step: int) -> None:
        nonlocal told_at
        if clock() - told_at >= LOG_SECONDS:
            told_at = clock()
            reporter.log(metrics, step=step)

    return log


class StageProgress:
    """Called often with (done, total, message); tells the platform now and then.

    A request to stop ends the stage at once as preempted; `kept` says what the next attempt makes of that.
    """

    def __init__(
        self,
        context: StageContext,
        reporter: Reporter,
        phase: str,
        *,
        kept: str = "the stage starts from its beginning next time",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context, self._reporter, self._phase, self._clock = context, reporter, phase, clock
        self._kept = kept
        self._told_at = -TELL_SECONDS
        self._began: dict[str, float] = {}

    def __call__(self, done: int, total: int, message: str) -> None:
        if self._context.stop_requested.is_set():
            raise AbruzziError("preempted", f"Told to stop while {message}; {self._kept}.")
        now = self._clock()
        if now - self._told_at < TELL_SECONDS and done < total:
            return
        self._told_at = now
        share = min(1.0, done / total) if total > 0 else 0.0
        began = self._began.setdefault(message.partition(" ")[0], now)
        left = (now - began) * (1 - share) / share if share > 0.02 and now > began else None
        estimate = f", about {left:.0f} s left" if left is not None and left >= 1 else ""
        self._reporter.heartbeat(
            done, self._phase, total_steps=total or None, progress=share, message=f"{message} ({share:.0%}{estimate})"
        )

    def commit(
        self, kind: ArtifactKind, name: str, files: Mapping[str, Path], meta: Mapping[str, Any] | None = None
    ) -> None:
        """Commit an output, with heartbeats of a phase of its own: hashing and storing a large one takes long. It is not broken off."""

        def tell(done: int, total: int) -> None:
            now = self._clock()
            if now - self._told_at >= TELL_SECONDS or done >= total:
                self._told_at = now
                share = done / total if total > 0 else 1.0
                self._reporter.heartbeat(done, "commit", progress=1.0, message=f"storing {name} ({share:.0%})")

        self._reporter.heartbeat(0, "commit", progress=1.0, message=f"storing {name}")
        self._context.commit(kind, name, files, meta=meta, progress=tell)
