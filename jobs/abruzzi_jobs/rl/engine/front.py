"""An engine among coroutines: steps run in one thread, and each waiting `generate` gets its own segment.

All calls of the engine happen in that thread, between two steps, so the engine needs no locks. A coroutine that is cancelled cancels its request.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rollout import Segment
from abruzzi_jobs.rl.engine.protocol import Drawn, Engine, EngineStats, Generated, Request

R = TypeVar("R")


class EngineFailed(AbruzziError):
    """A step raised: all that wait get this, and the front takes no more requests."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(
            "engine_failed",
            f"The inference engine broke off: {type(error).__name__}: {error}.",
            hint="Its state is unknown now: make a new engine and load the weights anew.",
        )


class AsyncEngine:
    """`async with AsyncEngine(engine) as front: segment = await front.generate(request)`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._rings = threading.Condition()
        self._orders: deque[_Order] = deque()
        self._is_closing = self._is_paused = False
        self._failure: EngineFailed | None = None
        self._waiting: dict[str, asyncio.Future[Segment]] = {}
        self._streams: dict[str, asyncio.Queue[Drawn]] = {}
        self._stats = engine.stats()
        self._thread = threading.Thread(target=self._run, name="inference-engine", daemon=True)

    async def __aenter__(self) -> AsyncEngine:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """What still waits is cancelled."""
        with self._rings:
            self._is_closing = True
            self._rings.notify()
        await asyncio.to_thread(self._thread.join)
        for future in self._waiting.values():
            future.cancel()

    @property
    def version(self) -> int:
        return self._engine.version

    def stats(self) -> EngineStats:
        """As of the last step or call."""
        return self._stats

    async def generate(self, request: Request) -> Segment:
        """Until it ends, or is paused with `abort`. While the engine is paused, it waits. Raises ValueError as `submit` does, EngineFailed."""
        if request.id in self._waiting:
            raise ValueError(f"request {request.id} is under way already")
        future: asyncio.Future[Segment] = self._loop.create_future()
        self._waiting[request.id] = future
        try:
            await self.call(lambda engine: engine.submit(request))
            return await future
        except asyncio.CancelledError:
            self._order(_Order(lambda engine: engine.cancel(request.id), None))
            raise
        finally:
            self._waiting.pop(request.id, None)

    async def stream(self, request: Request) -> AsyncGenerator[Drawn | Segment, None]:
        """Tokens of a request with `streamed` as they come, its segment last. Closing the iterator cancels the request."""
        queue: asyncio.Queue[Drawn] = asyncio.Queue()
        self._streams[request.id] = queue
        whole = asyncio.create_task(self.generate(request))
        try:
            while not (whole.done() and queue.empty()):
                item = asyncio.create_task(queue.get())
                await asyncio.wait((item, whole), return_when=asyncio.FIRST_COMPLETED)
                if item.done():
                    yield item.result()
                else:
                    item.cancel()
            yield await whole
        finally:
            del self._streams[request.id]
            whole.cancel()

    async def cancel(self, request_id: str) -> None:
        """The `generate` that waits for it returns what there is, with ending `aborted`."""

        def act(engine: Engine) -> None:
            ended = engine.cancel(request_id)
            self._hand_out([] if ended is None else [ended])

        await self.call(act)

    async def pause(self, mode: Literal["keep", "abort"]) -> None:
        """`abort`: all that wait return what there is, with ending `paused`."""

        def act(engine: Engine) -> None:
            self._is_paused = True
            self._hand_out(engine.pause(mode))

        await self.call(act)

    async def resume(self) -> None:
        def act(engine: Engine) -> None:
            engine.resume()
            self._is_paused = False

        await self.call(act)

    async def call(self, act: Callable[[Engine], R]) -> R:
        """`act` in the engine's thread between two steps: weight updates, sleep and wake, log-probabilities. Raises what it raises, EngineFailed."""
        done: asyncio.Future[R] = self._loop.create_future()
        self._order(_Order(act, done))
        return await done

    def _order(self, order: _Order) -> None:
        with self._rings:
            if self._failure is None and not self._is_closing:
                self._orders.append(order)
                self._rings.notify()
                return
        if order.done is not None:
            raise self._failure or RuntimeError("the engine's front is closed")

    # In the engine's thread

    def _run(self) -> None:
        try:
            while self._obey():
                ended = self._engine.step()
                self._hand_out(ended, self._engine.drawn())
                self._stats = self._engine.stats()
        except BaseException as error:  # whatever it is, those who wait are told
            failure = EngineFailed(error)
            with self._rings:
                self._failure = failure
                orders, self._orders = self._orders, deque()
            self._loop.call_soon_threadsafe(self._fail, failure, [order.done for order in orders])

    def _obey(self) -> bool:
        """Does what is ordered, and waits while there is nothing else to do. False at the end."""
        has_acted = False  # a weight update leaves requests that a step hands out
        while True:
            with self._rings:
                if self._orders:
                    order = self._orders.popleft()
                elif self._is_closing:
                    return False
                elif not self._is_paused and (has_acted or self._stats.running or self._stats.waiting):
                    return True
                else:
                    self._rings.wait()
                    continue
            self._carry_out(order)
            has_acted = True
            self._stats = self._engine.stats()

    def _carry_out(self, order: _Order) -> None:
        try:
            result = order.act(self._engine)
        except Exception as error:  # the one who ordered it is told
            self._settle(order.done, error=error)
        else:
            self._settle(order.done, result=result)

    def _settle(self, done: asyncio.Future[Any] | None, *, result: Any = None, error: Exception | None = None) -> None:
        if done is not None:
            self._loop.call_soon_threadsafe(_settled, done, result, error)

    def _hand_out(self, ended: Sequence[Generated], drawn: Sequence[Drawn] = ()) -> None:
        if ended or drawn:
            self._loop.call_soon_threadsafe(self._deliver, ended, drawn)

    # In the loop

    def _deliver(self, ended: Sequence[Generated], drawn: Sequence[Drawn]) -> None:
        for token in drawn:
            if token.request_id in self._streams:
                self._streams[token.request_id].put_nowait(token)
        for one in ended:
            if one.request_id in self._waiting:
                _settled(self._waiting[one.request_id], one.segment, None)

    def _fail(self, failure: EngineFailed, orders: Sequence[asyncio.Future[Any] | None]) -> None:
        for future in (*orders, *self._waiting.values()):
            if future is not None:
                _settled(future, None, failure)


@dataclass(frozen=True, slots=True)
class _Order:
    act: Callable[[Engine], Any]
    done: asyncio.Future[Any] | None


def _settled(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
