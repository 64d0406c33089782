"""Rates that a server has set, kept by all calls of a process together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Rate:
    """At most `per_minute` units a minute, evenly: the generic cell rate algorithm, in the order of arrival.

    Unlike the leaky buckets of the packages that there are, it lets one call have more than a second's share (a long prompt), takes back
    what a call turned out not to need, and can be told to pause.
    """

    def __init__(
        self,
        per_minute: float | None,
        *,
        burst_seconds: float = 1.0,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._seconds_a_unit = 60.0 / per_minute if per_minute else 0.0
        self._burst_seconds = burst_seconds
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._sleep = sleep
        self._next = float("-inf")
        """When the units that have been given out are used up."""
        self._paused_until = float("-inf")

    async def take(self, units: float = 1.0) -> None:
        """Waits until `units` are there."""
        if self._seconds_a_unit:
            now = self._clock()
            start = max(self._next, now - self._burst_seconds)
            self._next = start + units * self._seconds_a_unit
            if start > now:
                await self._sleep(start - now)
        while (rest := self._paused_until - self._clock()) > 0:
            await self._sleep(rest)

    def give_back(self, units: float) -> None:
        """Of what was taken and not needed; negative where it needed more."""
        self._next -= units * self._seconds_a_unit

    def pause(self, seconds: float) -> None:
        """Nobody takes anything for so long."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)
