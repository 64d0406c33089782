"""What of all that the watches say would make an executor answer otherwise: the few events of hundreds that are worth a controller's look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from abruzzi.engine.view import Phase, Seen
from abruzzi_operators.executors.ledger import Ledger

GATHER_SECONDS = 0.1
"""What comes in a burst is one piece of news."""
TURN_SECONDS = 1.0
"""How often it is looked whether the watches follow."""
BLIND_NEWS_SECONDS = 5.0
"""A watch that breaks and begins anew is no news."""
REWORDED_SECONDS = 30.0
"""A sentence about waiting that only reads differently is no news for so long: queues count aloud."""


@dataclass(frozen=True, slots=True)
class Told:
    phase: Phase
    reason: str | None
    leaves: bool
    at: float


class News:
    """`find` gives what would be said of an attempt now; None: nothing can be new about it."""

    def __init__(
        self,
        ledger: Ledger,
        find: Callable[[str], Seen | None],
        *,
        can_see: Callable[[], bool],
        now: Callable[[], float],
    ) -> None:
        self._ledger, self._find, self._can_see, self._now = ledger, find, can_see, now
        self.is_blind = False
        """For so long that it is news."""
        self._blind_since: float | None = None
        self._told: dict[str, Told] = {}
        self._dirty: set[str] = set()
        self._is_heard = False

    def note(self, attempt_id: str, seen: Seen) -> Seen:
        """What somebody is told now; with the promise to ring, where somebody waits for rings."""
        told = self._told.get(attempt_id)
        if told is None or (told.phase, told.reason, told.leaves) != (seen.phase, seen.reason, seen.leave is not None):
            self._told[attempt_id] = self._as_told(seen)
        return replace(seen, rings=self._is_heard)

    def forget(self, attempt_id: str) -> None:
        self._told.pop(attempt_id, None)

    async def wait(self) -> set[str]:
        """Attempts with news; one at least."""
        self._is_heard = True
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TURN_SECONDS):
                    self._dirty |= await self._ledger.changed()
            await asyncio.sleep(GATHER_SECONDS)
            self._look_around()
            dirty, self._dirty = self._dirty, set()
            if news := {attempt_id for attempt_id in dirty if self._is_news(attempt_id)}:
                return news

    def _look_around(self) -> None:
        """Blindness that lasts is news of all, and so is its end."""
        now = self._now()
        self._blind_since = None if self._can_see() else now if self._blind_since is None else self._blind_since
        is_blind = self._blind_since is not None and now - self._blind_since >= BLIND_NEWS_SECONDS
        if is_blind != self.is_blind:
            self.is_blind = is_blind
            self._dirty.update(self._told)

    def _is_news(self, attempt_id: str) -> bool:
        """Whoever is rung looks, and it may be another controller: a thing is rung for once."""
        seen, told = self._find(attempt_id), self._told.get(attempt_id)
        if seen is None:
            return False
        if told is not None and told.phase is seen.phase and told.leaves == (seen.leave is not None):
            is_reworded = told.reason != seen.reason and self._now() - told.at >= REWORDED_SECONDS
            if not is_reworded:
                return False
        self._told[attempt_id] = self._as_told(seen)
        return True

    def _as_told(self, seen: Seen) -> Told:
        return Told(seen.phase, seen.reason, seen.leave is not None, self._now())
