"""An engine out of process, behind HTTP: what vLLM's and SGLang's servers have in common, as the Engine protocol.

A request is a call that waits in a thread of its own event loop; `step` hands out what has come back meanwhile. Tokens go in and out as numbers. Draws are the server's: a request's
tokens follow from its seed only as far as the server keeps that (batch-invariant kernels), and log-probabilities are the server's arithmetic, not the learner's, so
`rl/mismatch_kl` is watched here, not zero. What the embedded engine refuses, this refuses, before anything is sent.

Weights go by a folder that server and trainer see (`/dev/shm`, or a shared volume): buckets are collected, written as a checkpoint with the names that the server's loader knows,
and loaded at `finish_update`. Until then the old weights are served.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import aiohttp
import torch
from torch import Tensor

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rollout import Ending, Segment, TokenSource
from abruzzi_jobs.rl.engine.drawing import uniforms
from abruzzi_jobs.rl.engine.protocol import Drawn, EngineStats, Generated, Request
from abruzzi_jobs.rl.engine.shadow import Coming, Shapes

STEP_SECONDS = 0.01
"""How long `step` waits for something to come back."""
AGAIN_SECONDS = 1.0
"""After which a request that was told to end is told so again: the first word may have come to the server before the request."""
T = TypeVar("T")
WriteWeights = Callable[[Mapping[str, Tensor], Path], None]
"""(parameters by logical name, an empty folder): a checkpoint that the server can load, such as `export.huggingface` writes."""


class EngineServerFailed(AbruzziError):
    """The server is away, or says no. Both sides' words."""

    def __init__(self, what: str, told: str) -> None:
        super().__init__("engine_server_failed", f"{what}: {told}", hint="Look into the server's own log.")


@dataclass(frozen=True, slots=True)
class Answer:
    """Of a server."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Under the distribution that they were drawn from."""
    ending: Ending


@dataclass(eq=False, slots=True)
class _UnderWay:
    request: Request
    call: Future[Answer]


class ServedEngine(ABC):
    """Subclasses say which addresses these things have. Close it after use."""

    def __init__(
        self,
        url: str,
        *,
        positions: int,
        vocab_size: int,
        shapes: Shapes,
        write: WriteWeights,
        folder: Path,
        version: int = 0,
        deadline_s: float = 600.0,
        token: str | None = None,
    ) -> None:
        """`folder`: that the server sees under the same name. `deadline_s`: of a call to the server that is not a generation. `token`: its API key."""
        self.url = url.rstrip("/")
        self._positions, self._vocab_size = positions, vocab_size
        self._weights = Coming(shapes, torch.device("cpu"), version)
        self._write, self._folder = write, folder
        self._deadline_s, self._token = deadline_s, token
        self._under_way: dict[str, _UnderWay] = {}
        self._ended: list[Generated] = []
        self._kept: list[Request] = []
        """Submitted while paused."""
        self._is_paused = self._is_asleep = False
        self._has_weights = True
        self._has_new_weights = False
        """Since it went to sleep."""
        self._prompt_tokens = self._generated_tokens = 0
        self._loop = asyncio.new_event_loop()
        self._something = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="served-engine", daemon=True)
        self._thread.start()
        self._session: aiohttp.ClientSession = self._wait(self._connect())

    @property
    def version(self) -> int:
        return self._weights.version

    # What a server calls these things

    @abstractmethod
    async def _generate(self, request: Request) -> Answer: ...

    @abstractmethod
    async def _abort(self, request_id: str) -> None:
        """Its call returns what there is."""

    @abstractmethod
    async def _pause_server(self, mode: Literal["keep", "abort"]) -> None: ...

    @abstractmethod
    async def _resume_server(self) -> None: ...

    @abstractmethod
    async def _sleep_server(self, level: Literal[1, 2]) -> None: ...

    @abstractmethod
    async def _wake_server(self, parts: Sequence[Literal["weights", "kv_cache"]]) -> None: ...

    @abstractmethod
    async def _load_weights(self, folder: Path, version: int) -> None:
        """And forgets its cache: no key or value crosses versions."""

    @abstractmethod
    async def _score(self, tokens: Sequence[int]) -> list[float]:
        """Log-probabilities of all tokens but the first, at temperature 1."""

    # Engine

    def submit(self, request: Request) -> None:
        if request.id in self._under_way or any(kept.id == request.id for kept in self._kept):
            raise ValueError(f"request {request.id} is under way already")
        if not request.tokens or request.max_tokens < 1:
            raise ValueError(f"request {request.id}: at least one token, and max_tokens of 1 or more")
        if not 0 <= min(request.tokens) <= max(request.tokens) < self._vocab_size:
            raise ValueError(f"request {request.id}: tokens of 0 to {self._vocab_size - 1}")
        if len(request.tokens) + 1 > self._positions:
            raise ValueError(
                f"request {request.id}: {len(request.tokens)} tokens leave no room; this engine has {self._positions} positions"
            )
        if request.constraint is not None or request.streamed:
            raise ValueError(f"request {request.id}: constraints and streams of tokens do not leave this process")
        if self._is_paused:
            self._kept.append(request)
        else:
            self._begin(request)

    def step(self) -> list[Generated]:
        if not self._is_paused:
            if not self._has_weights:
                raise ValueError("step: the weights were dropped by sleep; update them before")
            if self._under_way and not self._ended:
                self._something.wait(STEP_SECONDS)
        self._something.clear()
        self._collect()
        ended, self._ended = self._ended, []
        return ended

    def drawn(self) -> list[Drawn]:
        return []

    def cancel(self, request_id: str) -> Generated | None:
        for kept in self._kept:
            if kept.id == request_id:
                self._kept.remove(kept)
                return self._generated(kept, Answer((), (), Ending.ABORTED))
        found = self._under_way.get(request_id)
        if found is None:
            return None
        self._wait(self._abort(request_id))
        return self._end(found, Ending.ABORTED)

    def pause(self, mode: Literal["keep", "abort"]) -> list[Generated]:
        self._is_paused = True
        self._wait(self._pause_server(mode))
        return [] if mode == "keep" else self._end_all()

    def resume(self) -> None:
        if self._is_asleep:
            raise ValueError("resume: the engine sleeps; wake it first")
        self._wait(self._resume_server())
        self._is_paused = False
        kept, self._kept = self._kept, []
        for request in kept:
            self._begin(request)

    def sleep(self, level: Literal[1, 2]) -> None:
        """What was kept is computed anew afterwards: servers only sleep when they are idle."""
        self._only_paused("sleep")
        self._take_back()
        self._wait(self._sleep_server(level))
        self._is_asleep, self._has_new_weights = True, False
        self._has_weights = self._has_weights and level == 1

    def wake(self) -> None:
        if not self._has_weights:
            raise ValueError("wake: the weights were dropped; a weight update comes first")
        if self._is_asleep:
            self._wait(self._wake_server(("kv_cache",) if self._has_new_weights else ("weights", "kv_cache")))
        self._is_asleep = False

    def begin_update(self, version: int) -> None:
        self._only_paused("begin_update")
        self._weights.begin(version)

    def load_bucket(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        self._weights.load(tensors)

    def load_piece(self, name: str, start: int, flat: Tensor) -> None:
        self._weights.load_piece(name, start, flat)

    def finish_update(self, version: int) -> None:
        self._only_paused("finish_update")
        weights = self._weights.whole(version)
        self._take_back()
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=f"version-{version}-") as folder:
            self._write(weights, Path(folder))
            if self._is_asleep:
                self._wait(self._wake_server(("weights",)))
            self._has_weights = False  # until all of them are there: what fails midway may have left some of each
            self._wait(self._load_weights(Path(folder), version))
        self._weights.version = version
        self._weights.abandon()
        self._has_weights = self._has_new_weights = True

    def abandon_update(self) -> None:
        self._weights.abandon()

    def logprobs(self, sequences: Sequence[Sequence[int]], *, temperature: float) -> list[list[float]]:
        if temperature not in (0.0, 1.0):
            raise ValueError(f"logprobs: servers score at temperature 1, not {temperature}")
        return [self._wait(self._score(sequence)) if len(sequence) > 1 else [] for sequence in sequences]

    def stats(self) -> EngineStats:
        """`cache_tokens`: of prompts under way; a server's own cache is its own."""
        return EngineStats(
            version=self.version,
            running=len(self._under_way),
            waiting=len(self._kept),
            cache_tokens=sum(len(each.request.tokens) for each in self._under_way.values()),
            cache_capacity=0,
            prompt_tokens=self._prompt_tokens,
            shared_tokens=0,
            generated_tokens=self._generated_tokens,
        )

    def close(self) -> None:
        """What is under way is given up."""
        for each in self._under_way.values():
            self._loop.call_soon_threadsafe(each.call.cancel)
        self._wait(self._session.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # Calls

    async def _post(self, path: str, body: Mapping[str, Any] | None = None, *, deadline_s: float | None = None) -> Any:
        """`deadline_s`: 0 for none. Raises EngineServerFailed."""
        seconds = self._deadline_s if deadline_s is None else deadline_s
        try:
            async with self._session.post(
                f"{self.url}{path}", json=body or {}, timeout=aiohttp.ClientTimeout(total=seconds or None)
            ) as response:
                told = await response.text()
                if response.status >= 400:
                    raise EngineServerFailed(f"POST {path}", f"{response.status}: {told[:500]}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EngineServerFailed(f"POST {path}", f"{type(error).__name__}: {error}") from error
        return json.loads(told) if told.lstrip().startswith(("{", "[")) else told

    async def _connect(self) -> aiohttp.ClientSession:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        return aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    # Requests under way

    def _begin(self, request: Request) -> None:
        call = asyncio.run_coroutine_threadsafe(self._generate(request), self._loop)
        call.add_done_callback(lambda _: self._something.set())
        self._under_way[request.id] = _UnderWay(request, call)
        self._prompt_tokens += len(request.tokens)

    def _collect(self) -> None:
        for each in [each for each in self._under_way.values() if each.call.done()]:
            self._ended.append(self._end(each, Ending.ABORTED))

    def _end(self, each: _UnderWay, given_up: Ending) -> Generated:
        """What its call returns. `given_up`: what it is called where the server says that it was."""
        end = time.monotonic() + self._deadline_s
        try:
            while True:
                try:
                    answer = each.call.result(timeout=AGAIN_SECONDS)
                    break
                except FutureTimeoutError:
                    if time.monotonic() >= end:
                        raise
                    self._wait(self._abort(each.request.id))
        finally:
            del self._under_way[each.request.id]
        self._generated_tokens += len(answer.tokens)
        ending = given_up if answer.ending is Ending.ABORTED else answer.ending
        return self._generated(each.request, Answer(answer.tokens, answer.logprobs, ending))

    def _end_all(self) -> list[Generated]:
        kept, self._kept = self._kept, []
        ended = [self._end(each, Ending.PAUSED) for each in list(self._under_way.values())]
        return ended + [self._generated(request, Answer((), (), Ending.PAUSED)) for request in kept]

    def _take_back(self) -> None:
        """Requests that were kept at the server: what they have of tokens is of this version, and recorded so; those that have none begin again."""
        for each in list(self._under_way.values()):
            self._wait(self._abort(each.request.id))
            ended = self._end(each, Ending.PAUSED)
            if ended.segment.tokens:
                self._ended.append(ended)
            else:
                self._kept.append(each.request)

    def _generated(self, request: Request, answer: Answer) -> Generated:
        segment = Segment(
            source=TokenSource.POLICY,
            tokens=answer.tokens,
            logprobs=answer.logprobs,
            policy_version=self.version,
            temperature=request.temperature,
            ending=answer.ending,
        )
        return Generated(request.id, segment)

    def _only_paused(self, what: str) -> None:
        if not self._is_paused:
            raise ValueError(f"{what}: only when paused")


def seed_of(request: Request) -> int:
    """31 bits. A resumed request goes on with other numbers than those that its beginning was drawn with."""
    return int(uniforms([request.seed], [len(request.tokens)])[0] * 2**31)
