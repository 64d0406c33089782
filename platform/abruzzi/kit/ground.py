"""What side work stands on: database, object store, clock, settings. The same for Celery's workers and for the dispatcher in the controller."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from abruzzi.kit.clock import Clock, DatabaseClock, SystemClock
from abruzzi.kit.database_time import ask_time
from abruzzi.kit.db import Sessions, create_engine, create_sessions
from abruzzi.kit.settings import Settings
from abruzzi.store import ObjectStore, open_store


@dataclass(frozen=True, slots=True)
class Ground:
    """`sessions` connect as abruzzi_controller: side work is the platform's own and sees all projects."""

    sessions: Sessions
    objects: ObjectStore
    settings: Settings
    clock: Clock = field(default_factory=SystemClock)
    random: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one bounded step."""

    facts: dict[str, Any]
    """Small numbers for people, such as {"verified": 3}."""
    more: bool = False
    """There is more to do at once."""


@dataclass(slots=True)
class Budget:
    """Time for one step. A step looks at it between two items and stops in good order."""

    seconds: float
    _began: float = field(default_factory=time.monotonic)

    @property
    def is_spent(self) -> bool:
        return time.monotonic() - self._began >= self.seconds


@asynccontextmanager
async def open_ground(settings: Settings) -> AsyncIterator[Ground]:
    """For a process that has nothing else. Its dates go by Postgres' clock. Closes its connections at the end."""
    engine = create_engine(settings.require("controller_database_url"), pool_size=2)
    try:
        sessions, clock = create_sessions(engine), DatabaseClock()
        await ask_time(sessions, clock)
        yield Ground(sessions, open_store(settings.store_config()), settings, clock)
    finally:
        await engine.dispose()
