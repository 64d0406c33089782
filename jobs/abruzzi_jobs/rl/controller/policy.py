"""One policy on both sides of one process: the weights that are trained, and the engine's copy that plays (paper 3.3.1, 3.3.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rl import RlConfig
from abruzzi.contracts.rollout import Group
from abruzzi_jobs.rl.controller.ptx import PtxFeed
from abruzzi_jobs.rl.engine.front import AsyncEngine
from abruzzi_jobs.rl.learner.learner import Learner
from abruzzi_jobs.rl.learner.metrics import group_metrics
from abruzzi_jobs.rl.learner.packing import Minibatch
from abruzzi_jobs.rl.weights.worker import CheckpointWorker
from abruzzi_jobs.train.feed import Rows


class ColocatedPolicy:
    def __init__(
        self, learner: Learner, front: AsyncEngine, worker: CheckpointWorker, config: RlConfig, *, ptx: PtxFeed | None
    ) -> None:
        """`worker` has the engine behind `front` as its sink."""
        self._learner, self._front, self._worker, self._config = learner, front, worker, config
        self._ptx = ptx
        self._minibatches: tuple[Minibatch, ...] = ()
        self._lessons: Sequence[Rows | None] = ()

    async def to_training(self) -> None:
        """The engine gives back its cache, and on a GPU its copy of the weights, which is renewed before it wakes."""
        level = 2 if self._learner.ranks.device.type == "cuda" else 1
        await self._front.pause("abort")
        await self._front.call(lambda engine: engine.sleep(level))

    def anchor(
        self, groups: Sequence[Group], *, version: int, lessons: Sequence[Rows | None] = ()
    ) -> Mapping[str, float]:
        self._lessons = lessons
        self._minibatches = self._learner.anchor(groups, version=version, minibatches=self._config.minibatches)
        return group_metrics(groups, version=version)

    def step(self, version: int, number: int) -> Mapping[str, float]:
        at = version * self._config.minibatches + number
        step = self._learner.step(
            at,
            self._minibatches[number],
            ptx=None if self._ptx is None else self._ptx.rows(at),
            critic=self._lessons[number] if self._lessons else None,
            critic_weight=0.0 if self._config.critic is None else self._config.critic.refinement.weight,
            lr_scale=lr_scale(self._config, version),
        )
        return step.metrics

    def register(self, version: int) -> Mapping[str, Any]:
        """The trainer stands still until the update has ended, so nothing is copied here."""
        self._minibatches, self._lessons = (), ()
        registered = self._worker.register(version, self._learner.model.state_dict(), copy=False)
        told = "".join(f"{name} {registered.sums[name]}\n" for name in sorted(registered.sums))
        return {"version": version, "checksum": hashlib.sha256(told.encode()).hexdigest()[:16]}

    async def to_inference(self) -> None:
        """On a GPU, what the trainer's steps held goes back to the device."""
        if self._learner.ranks.device.type == "cuda":
            torch.cuda.empty_cache()

    async def update(self, version: int) -> Mapping[str, float]:
        """All or nothing. Raises WeightUpdateFailed: the engine then still has the weights before."""
        report = await self._front.call(lambda _engine: self._worker.update())
        return report.metrics()

    async def verify(self, version: int) -> Mapping[str, float]:
        """Raises AbruzziError where the engine would not play with the weights that were trained."""
        serves = await self._front.call(lambda engine: engine.version)
        if serves != version:
            raise AbruzziError(
                "stale_weights", f"The engine has version {serves} of the weights, not {version}.", status=503
            )
        await self._front.call(lambda engine: engine.wake())
        return {}


def lr_scale(config: RlConfig, iteration: int) -> float:
    """Share of the peak rate in an iteration, from 0: linear warm-up, then constant."""
    return min(1.0, (iteration + 1) / config.warmup_iterations) if config.warmup_iterations else 1.0
