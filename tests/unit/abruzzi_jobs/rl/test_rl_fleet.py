"""Inference replicas whose weights are a number: what each has when it, another one or the trainer is lost around an update."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from actor_places import Death, HereActor, HerePlace

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.rl.actors.fleet import Fleet
from abruzzi_jobs.rl.actors.offers import Offers
from abruzzi_jobs.rl.actors.replica import NOTHING
from abruzzi_jobs.rl.actors.stage import ActorParts
from abruzzi_jobs.rl.controller.parts import TrainerLost
from abruzzi_jobs.rl.engine.front import EngineFailed
from abruzzi_jobs.rl.engine.protocol import EngineStats, Request

PATIENCE_SECONDS = 240.0
REQUEST = Request(id="r", tokens=(1,), max_tokens=1, temperature=1.0, seed=0, stop_tokens=frozenset())


class Holder:
    """Of weights."""

    everybody: ClassVar[list[Holder]] = []

    def __init__(self) -> None:
        self.has = NOTHING
        self.address = str(len(self.everybody))
        self.everybody.append(self)

    async def offer(self, host: str | None, token: str) -> str:
        return self.address

    async def meet(self, host: str | None) -> str:
        return self.address

    async def join(self, rank: int, addresses: Sequence[str], token: str) -> None:
        self.source = self.everybody[int(addresses[0])]


class Trains(Holder):
    async def update(self) -> dict[str, float]:
        return {}


class Plays(Holder):
    is_deaf = False
    """When the others change their version."""

    async def version(self) -> int:
        return self.has

    async def update(self) -> dict[str, float]:
        if self.is_deaf:
            raise AbruzziError("weight_update_failed", "The trainer is gone.")
        self.has = self.source.has
        return {}

    async def pull(self, sources: Sequence[str], host: str | None, token: str) -> int:
        found = self.everybody[int(sources[0])].has
        if found < max(self.has, 0):
            raise AbruzziError("no_weights", "Nothing newer there.")
        self.has = found
        return found

    async def generate(self, request: Request) -> None: ...

    async def pause(self, mode: str) -> None: ...

    async def resume(self) -> None: ...

    async def wake(self) -> None: ...

    async def stats(self) -> EngineStats:
        return EngineStats(
            version=self.has, running=0, waiting=0, cache_tokens=0, cache_capacity=0, prompt_tokens=0, shared_tokens=0, generated_tokens=0,
        )  # fmt: skip


class Ground:
    def __init__(self, place: HerePlace, count: int) -> None:
        self.place = place
        self.fleet = Fleet(self._replica, count)

    async def _replica(self, _number: int) -> HereActor:
        return await self.place.start(Plays, node="here")

    async def trainer(self, version: int) -> HereActor:
        actor = await self.place.start(Trains, node="here")
        actor.target.has = version
        return actor

    def replicas(self) -> list[HereActor]:
        return [actor for actor in self.place.actors if actor.kind == "Plays" and not actor.dead.is_set()]

    def register(self, trainer: HereActor, version: int) -> None:
        trainer.target.has = version
        self.fleet.has_registered(version)


@asynccontextmanager
async def playing(count: int, *deaths: Death) -> AsyncIterator[tuple[Ground, HereActor]]:
    """By version 0."""
    ground = Ground(HerePlace(deaths=list(deaths)), count)
    async with asyncio.timeout(PATIENCE_SECONDS):
        trainer = await ground.trainer(0)
        await ground.fleet.start(trainer)
        ground.fleet.has_registered(0)
        await ground.fleet.update(0)
        await ground.fleet.resume()
        yield ground, trainer
        await ground.fleet.close()
    assert not ground.replicas(), "all are ended, those as well that were on their way"


async def test_who_is_replaced_around_an_update_may_have_the_new_weights_before_it() -> None:
    async with playing(1) as (ground, trainer):
        ground.register(trainer, 1)
        ground.replicas()[0].kill()
        await ground.fleet.pause("keep")
        await ground.fleet.update(1)
        assert await ground.fleet.versions() == [1]
        assert ground.fleet.replaced == 1


async def test_who_comes_after_others_have_ended_the_update_takes_their_weights() -> None:
    """The other one dies in it; a second try waits for who replaces it."""
    async with playing(2, Death("Plays", "update", 4)) as (ground, trainer):
        ground.register(trainer, 1)
        await ground.fleet.update(1)
        assert ground.fleet.version == 1
        assert await ground.fleet.versions() == [1, 1]


async def test_without_a_trainer_the_only_replica_waits_for_another_and_whoever_needs_it_hears_of_that() -> None:
    async with playing(1, Death("Trains", "offer", 1)) as (ground, _trainer):
        ground.replicas()[0].kill()
        with pytest.raises(EngineFailed, match="trainer"):
            await ground.fleet.generate(REQUEST)
        with pytest.raises(TrainerLost):
            await ground.fleet.update(1)
        another = await ground.trainer(0)
        ground.fleet.take_trainer(another)
        ground.register(another, 0)
        assert await ground.fleet.versions() == [0]
        assert ground.fleet.replaced == 1


async def test_a_trainer_that_trains_again_gives_weights_when_it_has_those_that_are_served() -> None:
    async with playing(1) as (ground, trainer):
        for version in (1, 2):
            ground.register(trainer, version)
            await ground.fleet.update(version)
        another = await ground.trainer(1)
        ground.fleet.take_trainer(another)
        ground.register(another, 1)
        ground.replicas()[0].kill()
        waiting = asyncio.create_task(ground.fleet.generate(REQUEST))
        while not ground.fleet._starving:
            await asyncio.sleep(0)
        assert await ground.fleet.update(1) == {}
        assert not waiting.done()
        ground.register(another, 2)
        await waiting
        assert await ground.fleet.versions() == [2]


async def test_where_the_trainer_dies_when_one_replica_has_changed_its_version_all_do() -> None:
    async with playing(2, Death("Trains", "update", 2, is_after=True)) as (ground, trainer):
        ground.register(trainer, 1)
        ground.replicas()[0].target.is_deaf = True
        with pytest.raises(TrainerLost):
            await ground.fleet.update(1)
        assert ground.fleet.version == 1
        assert await ground.fleet.versions() == [1, 1]
        assert ground.place.calls["Plays", "pull"] == 1


async def test_at_the_end_a_replica_is_ended_that_still_waits_for_weights() -> None:
    async with playing(1, Death("Trains", "offer", 1)) as (ground, _trainer):
        ground.replicas()[0].kill()
        with pytest.raises(EngineFailed):
            await ground.fleet.generate(REQUEST)
        assert len(ground.replicas()) == 1


async def test_whatever_one_part_raises_at_the_end_all_are_ended() -> None:
    ended: list[str] = []

    def part(name: str, error: Exception | None = None) -> Any:
        async def end() -> None:
            ended.append(name)
            if error is not None:
                raise error

        return SimpleNamespace(close=end, end=end)

    resources = SimpleNamespace(threads=1, ranks=1)
    context = SimpleNamespace(spec=SimpleNamespace(seed=0))
    parts = ActorParts(HerePlace(), context, SimpleNamespace(resources=resources), {})
    parts.policy, parts.begun = part("policy", OSError("disk full")), part("begun")
    parts.fleet, parts.crew, parts._training = part("fleet"), part("crew"), part("trainer")
    with pytest.raises(OSError, match="disk full"):
        await parts.close()
    assert ended == ["policy", "trainer", "fleet", "crew"]


def test_of_what_an_actor_offers_nothing_stays_behind() -> None:
    offers = Offers(lambda: pytest.fail("nobody asks"))
    address = Path(offers.at(None, "t"))
    assert address.is_socket()
    assert offers.at(None, "t") == str(address)
    assert offers.at("127.0.0.1", "t").startswith("127.0.0.1:")
    offers.close()
    assert not address.parent.exists()
