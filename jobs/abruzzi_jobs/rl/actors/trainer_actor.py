"""The trainer in a process of its own, beside the stage's: `rl.controller.trainer.Trainer` and its part in updates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch

from abruzzi.client.stage import StageContext
from abruzzi.contracts.artifact import ArtifactRef, Manifest
from abruzzi.contracts.recipe import RlStage
from abruzzi.contracts.rollout import Group
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import ArtifactKind
from abruzzi.store import checkpoint_after_divergences, open_store
from abruzzi_jobs.checkpoint import randomness
from abruzzi_jobs.distributed import lone_rank
from abruzzi_jobs.models import Decoder
from abruzzi_jobs.rl.actors.member import Member
from abruzzi_jobs.rl.actors.offers import Offers
from abruzzi_jobs.rl.actors.replica import NOTHING, Source
from abruzzi_jobs.rl.controller.ledger import MemoryLedger
from abruzzi_jobs.rl.controller.trainer import Begun, Trainer, facts_of
from abruzzi_jobs.rl.engine.shadow import Weights
from abruzzi_jobs.rl.weights.registered import Registered
from abruzzi_jobs.train.feed import Rows

R = TypeVar("R")


class TrainerActor:
    """All that computes does so in one thread, so that the actor answers meanwhile."""

    def __init__(self, spec: StageSpec, attempt_dir: Path, threads: int) -> None:
        self._spec, self._attempt_dir, self._threads = spec, attempt_dir, threads
        self._stage = RlStage.model_validate(spec.config)
        self._thread = ThreadPoolExecutor(1, "trainer", lambda: torch.set_num_threads(threads))
        self._member = Member(None)
        self._trainer: Trainer | None = None
        self._committed: list[tuple[str, Manifest]] = []
        self._has_stepped = False
        """Since the last registration."""
        self._offers = Offers(self._copy)

    async def begin(self, *, again: bool, source: Source | None) -> Begun:
        """Model, optimizer, and what the newest checkpoint has. `again`: after another of this attempt, whose checkpoints count. `source`: weights that the
        group which has been joined reads together, where nothing was trained yet."""
        return await self._do(lambda: self._begin(again, source))

    async def anchor(
        self, groups: Sequence[Group], version: int, lessons: Sequence[Rows | None]
    ) -> Mapping[str, float]:
        return await self._do(lambda: self._own.anchor(groups, version, lessons))

    async def step(self, version: int, number: int) -> Mapping[str, float]:
        self._has_stepped = True
        return await self._do(lambda: self._own.step(version, number))

    async def register(self, version: int, *, copy: bool) -> dict[str, Any]:
        """`copy`: training goes on while others still take these."""
        facts = await self._do(lambda: facts_of(self._member.register(version, self._own.weights(), copy=copy)))
        self._has_stepped = False
        return facts

    async def save(
        self, iterations: int, tokens: int, line: int, *, now: bool
    ) -> tuple[list[Mapping[str, float]], list[tuple[str, Manifest]]]:
        """As Trainer.save, and what was committed since the last call: (key, manifest)."""
        found = await self._do(lambda: self._own.save(iterations, tokens, line, now=now))
        return found, self._take_committed()

    async def close(self) -> list[tuple[str, Manifest]]:
        """What was committed since the last save. It may be ended then."""
        try:
            await self._do(self._own.close)
        finally:
            self._offers.close()
            await self._do(self._member.leave)
        return self._take_committed()

    async def meet(self, host: str | None) -> str:
        return await self._do(lambda: self._member.meet(host))

    async def join(self, rank: int, addresses: Sequence[str], token: str) -> None:
        await self._do(lambda: self._member.join(rank, addresses, token))

    async def update(self) -> dict[str, float]:
        report = await self._do(self._member.update)
        return report.metrics()

    async def offer(self, host: str | None, token: str) -> str:
        """Address at which replicas get what is registered here, unless it has been trained on since without a copy."""
        return self._offers.at(host, token)

    async def peak(self) -> int:
        """Bytes since it was asked last."""
        self._memory.mark("all")
        return self._memory.take()["all"]

    # In the thread

    def _begin(self, again: bool, source: Source | None) -> Begun:
        randomness.seed(self._spec.seed)
        ranks = lone_rank()
        self._memory = MemoryLedger(ranks.device)
        spec = self._resuming() if again else self._spec
        context = StageContext(spec, 0, 1, self._attempt_dir, open_store(spec.store))
        context.on_commit.append(lambda key, manifest: self._committed.append((key, manifest)))

        def read(model: Decoder) -> None:
            assert source is not None
            self._member.start_from(source.files(), _Into(model), 0)

        self._trainer = Trainer(context, self._stage, ranks, read=None if source is None else read, shares_memory=True)
        return self._trainer.begin()

    def _resuming(self) -> StageSpec:
        """From the newest checkpoint of this attempt, where it has one."""
        spec = self._spec
        store = open_store(spec.store)
        found = checkpoint_after_divergences(
            store, spec.output_prefix, max_epoch=spec.epoch, in_a_row=0, accept=lambda each: each.epoch == spec.epoch
        )
        if found.key is None or found.manifest is None:
            return spec
        reference = ArtifactRef(kind=ArtifactKind.CHECKPOINT, manifest_key=found.key, digest=found.manifest.digest())
        return spec.model_copy(update={"resume": reference})

    def _copy(self) -> Registered:
        """In the thread of who asks; the trainer stands still. Raises ValueError, which that one is told."""
        found = self._member.registered()
        if found.copied:
            return found
        if self._has_stepped:
            raise ValueError(f"version {found.version} of the weights is trained on, and there is no copy of it")
        return Registered(found.version, self._own.model.state_dict(), copy=True)

    @property
    def _own(self) -> Trainer:
        assert self._trainer is not None, "begin comes first"
        return self._trainer

    def _take_committed(self) -> list[tuple[str, Manifest]]:
        found = list(self._committed)
        del self._committed[: len(found)]
        return found

    async def _do(self, act: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, act)


class _Into:
    """A sink: the trainer's own model, before it has trained."""

    def __init__(self, model: Decoder) -> None:
        self._weights = Weights(model, NOTHING)
        self.begin_update, self.load_bucket, self.load_piece = (
            self._weights.begin,
            self._weights.load,
            self._weights.load_piece,
        )
        self.finish_update, self.abandon_update = self._weights.finish, self._weights.abandon

    @property
    def version(self) -> int:
        return self._weights.version
