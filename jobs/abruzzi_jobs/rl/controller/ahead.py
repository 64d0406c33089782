"""Rollouts ahead of training (bounded asynchrony, η > 0): iterations are played in their order while earlier ones are trained, as far as η allows.

An iteration's rollouts may begin as soon as the engine has weights that are at most η versions before it; AReaL's bound (reference/rl.md 1.2) with whole
iterations. With η = 0 an iteration is played when it is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from abruzzi_jobs.rl.controller.parts import Collected
from abruzzi_jobs.rl.rollout.collect import Interrupted


class Ahead:
    """`play(iteration, served)`: one at a time. `is_barred`: iterations that are played only when they are asked for, since something comes first."""

    def __init__(
        self,
        play: Callable[[int, int], Awaitable[Collected]],
        *,
        staleness: int,
        last: int,
        is_barred: Callable[[int], bool],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._play, self._staleness, self._last, self._is_barred = play, staleness, last, is_barred
        self._clock = clock
        self._served = 0
        self._done: dict[int, Collected] = {}
        self._next = 0
        self._asked = -1
        self._is_draining = False
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._spans: list[tuple[float, float | None]] = []
        """When something was played: (from, to), to None while it is."""

    def begin(self, iteration: int, served: int) -> None:
        """Training goes on from there. Nothing may be under way (`drain`)."""
        self._next, self._asked, self._served = iteration, -1, max(served, self._served)
        self._task, self._is_draining = None, False
        self._done.clear()

    async def take(self, iteration: int) -> Collected:
        """Raises what `play` raises."""
        self._asked = iteration
        while iteration not in self._done:
            self._go_on()
            await self._until_one_more()
        found = self._done.pop(iteration)
        self._go_on()
        return found

    def renewed(self, version: int) -> None:
        """What the engine serves."""
        self._served = max(version, self._served)
        self._go_on()

    async def drain(self) -> None:
        """What is under way comes to its end, and nothing more is begun."""
        self._is_draining = True
        if self._task is not None:
            with contextlib.suppress(Interrupted):
                await self._task

    def seconds_between(self, begin: float, end: float) -> float:
        """Of the clock, in which something was played."""
        now = self._clock()
        return sum(max(0.0, min(end, now if to is None else to) - max(begin, of)) for of, to in self._spans)

    async def _until_one_more(self) -> None:
        """Is played, or nothing is any more: then what was raised is raised."""
        assert self._task is not None
        self._more.clear()
        more = asyncio.ensure_future(self._more.wait())
        try:
            await asyncio.wait({self._task, more}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            more.cancel()
        if self._task.done():
            self._task.result()

    def _go_on(self) -> None:
        if (self._task is None or (self._task.done() and self._task.exception() is None)) and self._may_play():
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while self._may_play():
            iteration = self._next
            self._spans = [*self._spans[-8:], (self._clock(), None)]
            try:
                self._done[iteration] = await self._play(iteration, min(iteration, self._served))
                self._more.set()
            finally:
                self._spans[-1] = (self._spans[-1][0], self._clock())
            self._next = iteration + 1

    def _may_play(self) -> bool:
        iteration = self._next
        if iteration >= self._last or self._is_draining:
            return False
        if iteration == self._asked:
            return True
        return iteration - self._served <= self._staleness and not self._is_barred(iteration) and self._staleness > 0
