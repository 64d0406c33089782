"""One policy on both sides of one process: the weights that are trained, and the engine's copy that plays (paper 3.3.1, 3.3.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rollout import Group
from abruzzi_jobs.rl.controller.trainer import Trainer, facts_of
from abruzzi_jobs.rl.engine.front import AsyncEngine
from abruzzi_jobs.rl.weights.worker import CheckpointWorker
from abruzzi_jobs.train.feed import Rows

R = TypeVar("R")


class ColocatedPolicy:
    def __init__(
        self, trainer: Trainer, front: AsyncEngine, worker: CheckpointWorker, *, is_beside: bool = False
    ) -> None:
        """`worker` has the engine behind `front` as its sink. `is_beside`: training goes on in a thread of its own while the engine plays."""
        self._trainer, self._front, self._worker = trainer, front, worker
        threads = torch.get_num_threads()
        self._thread = ThreadPoolExecutor(1, "trainer", lambda: torch.set_num_threads(threads)) if is_beside else None

    async def to_training(self) -> None:
        """The engine gives back its cache, and on a GPU its copy of the weights, which is renewed before it wakes. Beside training it goes on."""
        if self._thread is not None:
            return
        level = 2 if self._trainer.is_on_gpu else 1
        await self._front.pause("abort")
        await self._front.call(lambda engine: engine.sleep(level))

    async def anchor(
        self, groups: Sequence[Group], *, version: int, lessons: Sequence[Rows | None] = ()
    ) -> Mapping[str, float]:
        return await self._do(lambda: self._trainer.anchor(groups, version, lessons))

    async def step(self, version: int, number: int) -> Mapping[str, float]:
        return await self._do(lambda: self._trainer.step(version, number))

    async def register(self, version: int) -> Mapping[str, Any]:
        """The trainer stands still until the update has ended, so nothing is copied here."""
        return facts_of(self._worker.register(version, self._trainer.weights(), copy=False))

    async def to_inference(self) -> None:
        """On a GPU, what the trainer's steps held goes back to the device."""
        if self._trainer.is_on_gpu:
            torch.cuda.empty_cache()

    async def update(self, version: int) -> Mapping[str, float]:
        """All or nothing. Raises WeightUpdateFailed: the engine then still has the weights before."""
        report = await self._front.call(lambda _engine: self._worker.update())
        return report.metrics()

    async def verify(self, version: int) -> Mapping[str, float]:
        """Raises AbruzziError where the engine would not play with the weights that were trained."""
        serves = await self._front.call(lambda engine: engine.version)
        refuse_stale([serves], version)
        await self._front.call(lambda engine: engine.wake())
        return {}

    async def save(self, iterations: int, tokens: int, line: int, *, now: bool) -> Sequence[Mapping[str, float]]:
        return await self._do(lambda: self._trainer.save(iterations, tokens, line, now=now))

    async def _do(self, act: Callable[[], R]) -> R:
        if self._thread is None:
            return act()
        return await asyncio.get_running_loop().run_in_executor(self._thread, act)


def refuse_stale(serves: Sequence[int], version: int) -> None:
    if strange := [each for each in serves if each != version]:
        raise AbruzziError(
            "stale_weights", f"The engine has version {strange[0]} of the weights, not {version}.", status=503
        )
