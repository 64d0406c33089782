"""The engine among coroutines: each gets its own segment; pausing, cancelling and failing reach those that wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Literal

import pytest
from torch import Tensor

from abruzzi.contracts.rollout import Ending, Segment, TokenSource
from abruzzi_jobs.rl.engine.front import AsyncEngine, EngineFailed
from abruzzi_jobs.rl.engine.protocol import Drawn, EngineStats, Generated, Request


class Counting:
    """The Engine protocol without a model: a request draws 0, 1, 2, …"""

    def __init__(self) -> None:
        self.version, self.fails_at = 0, -1
        self.running: dict[str, tuple[Request, int]] = {}
        self.is_paused = False
        self.steps = 0
        self._drawn: list[Drawn] = []
        self._ended: list[Generated] = []

    def submit(self, request: Request) -> None:
        if request.max_tokens < 1:
            raise ValueError("max_tokens")
        self.running[request.id] = (request, 0)

    def step(self) -> list[Generated]:
        assert not self.is_paused
        self.steps += 1
        if self.steps == self.fails_at:
            raise MemoryError("no memory")
        ended, self._ended = self._ended, []
        for name, (request, count) in list(self.running.items()):
            self.running[name] = (request, count + 1)
            if request.streamed:
                self._drawn.append(Drawn(name, count, -1.0))
            if count + 1 == request.max_tokens:
                ended.append(self._end(name, Ending.LENGTH))
        return ended

    def drawn(self) -> list[Drawn]:
        drawn, self._drawn = self._drawn, []
        return drawn

    def cancel(self, request_id: str) -> Generated | None:
        return self._end(request_id, Ending.ABORTED) if request_id in self.running else None

    def pause(self, mode: Literal["keep", "abort"]) -> list[Generated]:
        self.is_paused = True
        return [] if mode == "keep" else [self._end(name, Ending.PAUSED) for name in list(self.running)]

    def resume(self) -> None:
        self.is_paused = False

    def sleep(self, level: Literal[1, 2]) -> None: ...

    def wake(self) -> None: ...

    def begin_update(self, version: int) -> None:
        """And `finish_update`: what was kept is handed out by the next step."""
        self._ended += [self._end(name, Ending.PAUSED) for name in list(self.running)]
        self.version = version

    def load_bucket(self, tensors: Iterable[tuple[str, Tensor]]) -> None: ...

    def load_piece(self, name: str, start: int, flat: Tensor) -> None: ...

    def finish_update(self, version: int) -> None: ...

    def abandon_update(self) -> None: ...

    def logprobs(self, sequences: Sequence[Sequence[int]], *, temperature: float) -> list[list[float]]:
        return []

    def stats(self) -> EngineStats:
        return EngineStats(
            version=self.version, running=len(self.running), waiting=0, cache_tokens=0, cache_capacity=1, prompt_tokens=0, shared_tokens=0,
            generated_tokens=0,
        )  # fmt: skip

    def _end(self, name: str, ending: Ending) -> Generated:
        request, count = self.running.pop(name)
        segment = Segment(
            source=TokenSource.POLICY, tokens=tuple(range(count)), logprobs=(-1.0,) * count, policy_version=self.version,
            temperature=request.temperature, ending=ending,
        )  # fmt: skip
        return Generated(name, segment)


ENDLESS = 10**9


def asked(name: str, max_tokens: int = ENDLESS, **more) -> Request:
    return Request(
        id=name, tokens=(1,), max_tokens=max_tokens, temperature=1.0, seed=0, stop_tokens=frozenset(), **more
    )


async def until_running(engine: Counting, count: int) -> None:
    async with asyncio.timeout(120):
        while len(engine.running) < count:
            await asyncio.sleep(0)


async def test_each_gets_its_own_segment() -> None:
    async with AsyncEngine(Counting()) as front:
        segments = await asyncio.gather(*(front.generate(asked(str(n), n)) for n in range(1, 30)))
        assert [len(s.tokens) for s in segments] == list(range(1, 30))
        with pytest.raises(ValueError, match="max_tokens"):
            await front.generate(asked("none", 0))


async def test_abort_gives_what_there_is_and_keep_goes_on() -> None:
    engine = Counting()
    async with AsyncEngine(engine) as front:
        waiting = [asyncio.create_task(front.generate(asked(str(n)))) for n in range(3)]
        await until_running(engine, 3)
        await front.pause("keep")
        steps = engine.steps
        assert await front.call(lambda e: e.stats().running) == 3
        assert engine.steps == steps
        await front.resume()
        await front.pause("abort")
        assert {s.ending for s in await asyncio.gather(*waiting)} == {Ending.PAUSED}
        await front.resume()
        kept = asyncio.create_task(front.generate(asked("kept")))
        await until_running(engine, 1)
        await front.pause("keep")
        await front.call(lambda e: e.begin_update(3))
        late = asyncio.create_task(front.generate(asked("late", 2)))
        await until_running(engine, 1)
        await front.resume()
        segment = await kept
        assert (segment.policy_version, segment.ending) == (0, Ending.PAUSED)
        assert (await late).policy_version == front.version == 3


async def test_who_stops_waiting_cancels_its_request() -> None:
    engine = Counting()
    async with AsyncEngine(engine) as front:
        gone, stays = (asyncio.create_task(front.generate(asked(name))) for name in ("gone", "stays"))
        await until_running(engine, 2)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert await front.call(lambda e: e.stats().running) == 1
        await front.cancel("stays")
        assert (await stays).ending is Ending.ABORTED


async def test_tokens_come_as_they_are_drawn() -> None:
    engine = Counting()
    async with AsyncEngine(engine) as front:
        items = [item async for item in front.stream(asked("s", 5, streamed=True))]
        assert [item.token for item in items[:-1]] == [0, 1, 2, 3, 4]
        assert items[-1].tokens == (0, 1, 2, 3, 4)
        endless = front.stream(asked("e", streamed=True))
        assert (await anext(endless)).token == 0
        await endless.aclose()
        async with asyncio.timeout(120):
            while await front.call(lambda e: e.stats().running):
                await asyncio.sleep(0)


async def test_a_failed_step_reaches_all_that_wait_and_all_that_come() -> None:
    engine = Counting()
    engine.fails_at = 5
    async with AsyncEngine(engine) as front:
        results = await asyncio.gather(*(front.generate(asked(str(n))) for n in range(3)), return_exceptions=True)
        assert [type(r) for r in results] == [EngineFailed] * 3
        with pytest.raises(EngineFailed, match="MemoryError: no memory"):
            await front.generate(asked("later"))


async def test_what_an_update_ends_is_handed_out_though_nothing_else_is_left_to_do() -> None:
    engine = Counting()
    async with AsyncEngine(engine) as front:
        kept = asyncio.create_task(front.generate(asked("kept")))
        await until_running(engine, 1)
        await front.pause("keep")
        await front.call(lambda e: e.begin_update(1))
        await front.resume()
        async with asyncio.timeout(120):
            assert (await kept).ending is Ending.PAUSED
