"""An inference replica: an engine in a process of its own, without weights until it is given some."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.recipe import RlStage
from abruzzi.contracts.rollout import Segment
from abruzzi.contracts.stage import DirectoryStore, S3Store
from abruzzi.store import open_store
from abruzzi_jobs.checkpoint.tensor_file import WEIGHTS_FILE
from abruzzi_jobs.distributed import lone_rank
from abruzzi_jobs.rl.actors.member import Member
from abruzzi_jobs.rl.actors.offers import Offers
from abruzzi_jobs.rl.controller.ledger import MemoryLedger
from abruzzi_jobs.rl.engine.front import AsyncEngine
from abruzzi_jobs.rl.engine.protocol import EngineStats, Request
from abruzzi_jobs.rl.engine.torch_engine import TorchEngine
from abruzzi_jobs.rl.weights.late import pull
from abruzzi_jobs.rl.weights.registered import Registered
from abruzzi_jobs.rl.weights.startup import File, files_of_manifest
from abruzzi_jobs.train.training import model_of

NOTHING = -1
"""Version of an engine without weights."""


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint in its store, which every member can reach."""

    store: DirectoryStore | S3Store
    manifest: Manifest
    prefix: str

    def files(self) -> list[File]:
        return files_of_manifest(open_store(self.store), self.manifest, self.prefix, names=[WEIGHTS_FILE])


class EngineReplica:
    """Methods are those of `rl.engine.front.AsyncEngine`, and its part in updates."""

    def __init__(self, stage: RlStage, table: dict[str, Any], threads: int) -> None:
        ranks = lone_rank()
        self._threads = threads
        model = model_of(stage.id, stage.memory, ranks, table, seed=None)
        self._engine = TorchEngine(model, version=NOTHING, max_running=stage.rl.concurrency)
        self._engine.pause("abort")
        self._engine.sleep(2)
        self._front = AsyncEngine(self._engine)
        self._member = Member(self._engine)
        self._memory = MemoryLedger(ranks.device)
        self._offers = Offers(self._now)

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self._front.__aenter__()
        await self._front.call(lambda _engine: torch.set_num_threads(self._threads))

    async def close(self) -> None:
        """What others on this machine would find of it goes; then it may be ended."""
        self._offers.close()
        await self._front.call(lambda _engine: self._member.leave())

    # Requests

    async def generate(self, request: Request) -> Segment:
        return await self._front.generate(request)

    async def cancel(self, request_id: str) -> None:
        await self._front.cancel(request_id)

    async def pause(self, mode: Literal["keep", "abort"]) -> None:
        await self._front.pause(mode)

    async def resume(self) -> None:
        await self._front.resume()

    async def stats(self) -> EngineStats:
        return self._front.stats()

    # Weights

    async def version(self) -> int:
        return await self._front.call(lambda engine: engine.version)

    async def sleep(self) -> None:
        """On a GPU the weights go, too: a new version comes before it wakes."""
        level: Literal[1, 2] = 2 if torch.cuda.is_available() else 1
        await self._front.call(lambda engine: engine.sleep(level))

    async def wake(self) -> None:
        await self._front.call(lambda engine: engine.wake())

    async def meet(self, host: str | None) -> str:
        return await self._front.call(lambda _engine: self._member.meet(host))

    async def join(self, rank: int, addresses: Sequence[str], token: str) -> None:
        await self._front.call(lambda _engine: self._member.join(rank, addresses, token))

    async def start_from(self, source: Source, version: int) -> None:
        await self._front.call(lambda engine: self._member.start_from(source.files(), self._engine, version))

    async def update(self) -> dict[str, float]:
        """Between two steps. Raises WeightUpdateFailed: the old weights are served then."""
        report = await self._front.call(lambda _engine: self._member.update())
        return report.metrics()

    async def offer(self, host: str | None, token: str) -> str:
        """Address at which replicas that come later get what this one serves."""
        return self._offers.at(host, token)

    async def pull(self, sources: Sequence[str], host: str | None, token: str) -> int:
        """The version that came. Raises WeightUpdateFailed, AbruzziError `no_weights`."""
        own = host or "127.0.0.1"
        report = await self._front.call(lambda _engine: pull(sources, self._engine, host=own, token=token))
        return report.version

    async def peak(self) -> int:
        """Bytes since it was asked last."""
        self._memory.mark("all")
        return self._memory.take()["all"]

    def _now(self) -> Registered:
        """In the thread of who asks; between two steps."""
        return asyncio.run_coroutine_threadsafe(self._front.call(_copy), self._loop).result()


def _copy(engine: Any) -> Registered:
    """Raises ValueError, which who asks is told, where the weights are dropped or have never been here."""
    if engine.version == NOTHING or not engine.has_weights:
        raise ValueError("this replica has no weights")
    return Registered(engine.version, engine.model.state_dict(), copy=True)
