"""Time, injected: services ask a clock, tests and the simulation turn its hands."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware, in UTC."""
        ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


def _ticks() -> float:
    """Seconds since some moment, on through a sleep of the machine where the system can tell."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class DatabaseClock:
    """Postgres' time, so that leases, expiries and dates to wake at agree on all machines, whatever their own clocks say.

    kit/database_time.py sets it; until then it goes by this machine. Between two settings it only counts, so a jump of the machine's clock
    is none of it.
    """

    def __init__(self, *, wall: Callable[[], float] = time.time, ticks: Callable[[], float] = _ticks) -> None:
        self.ticks = ticks
        self._offset = wall() - ticks()

    def set(self, database_seconds: float, *, asked_at: float, answered_at: float) -> None:
        """`database_seconds`: Unix time that Postgres told between the two ticks; wrong by half of what lies between them at most."""
        self._offset = database_seconds - (asked_at + answered_at) / 2

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds(), UTC)

    def seconds(self) -> float:
        """Unix time."""
        return self._offset + self.ticks()


def from_unix(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def to_unix(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
