"""The attempts of a home, for the supervisor that goes down: which still live, and their end."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

from abruzzi_operators.executors.attempt_dir import AttemptDir

POLL_SECONDS = 0.05


def living_attempts(attempts: Path) -> list[AttemptDir]:
    """Those whose ranks have not all ended."""
    found = [AttemptDir(path) for path in sorted(attempts.iterdir())] if attempts.is_dir() else []
    return [a for a in found if a.exists and a.outcome() is None and (a.launcher_lives() or a.ranks_live())]


def request_stops(attempts: Path, *, grace_seconds: float) -> None:
    """SIGTERM to all ranks, SIGKILL after the grace; for a controller that cannot do it."""
    for attempt in living_attempts(attempts):
        attempt.request_stop(kill_at=time.time() + grace_seconds)
        attempt.ensure_launcher()  # where it was killed, another adopts the ranks and passes the request on


async def gone(attempts: Path, *, seconds: float) -> None:
    """Returns when no rank lives, or when the time is over."""
    await _until_none(lambda: living_attempts(attempts), seconds=seconds)


async def end_attempts(attempts: Path, *, seconds: float) -> None:
    """Kill what is left (the runs are resumed from their checkpoints) and end launchers that only wait for the API to take logs."""
    request_stops(attempts, grace_seconds=0.0)
    await gone(attempts, seconds=seconds)
    for attempt in _launchers(attempts):
        attempt.signal_launcher(signal.SIGTERM)
    await _until_none(lambda: _launchers(attempts), seconds=seconds)


def _launchers(attempts: Path) -> list[AttemptDir]:
    found = [AttemptDir(path) for path in sorted(attempts.iterdir())]
    return [attempt for attempt in found if attempt.exists and attempt.launcher_lives()]


async def _until_none(remaining: Callable[[], list[AttemptDir]], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while remaining() and time.monotonic() < deadline:
        await asyncio.sleep(POLL_SECONDS)
