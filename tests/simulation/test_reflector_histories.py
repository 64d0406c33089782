"""Any history of writes and faults, from a seed: when the faults are over, the cache is the truth, and every reader has been told."""

from __future__ import annotations

import asyncio
import random

import pytest
from simulation.fake_api import FakeApi
from simulation.virtual_time import run_virtual

from abruzzi_operators.kubernetes.errors import ApiError, Denied, NotFound, Throttled, Unreachable
from abruzzi_operators.kubernetes.reflector import Key, Reflector, Tuning
from abruzzi_operators.kubernetes.resources import CONFIG_MAPS, Object

SEEDS = range(60)
STEPS = 60
NAMES = [f"object-{number}" for number in range(6)]
OUTAGES: list[ApiError] = [
    Unreachable("connection refused"),
    Unreachable("etcdserver: leader changed", http_status=500),
    Throttled("too many requests", http_status=429, retry_after_seconds=3.0),
    Denied("Unauthorized", http_status=401),
]
TUNING = Tuning(page_size=2, compare_seconds=300.0)


class World:
    """The apiserver, whatever happens to it, and one reader that keeps a copy by what it is told."""

    def __init__(self, seed: int, *, may_lose: bool) -> None:
        self.rng = random.Random(seed)
        self.may_lose = may_lose
        self.api = FakeApi(now=lambda: 0.0)
        self.copy: dict[Key, str] = {}
        self.snapshots = [self.api.snapshot()]
        self.has_lost = False
        self.has_restored = False

    def truth(self) -> dict[Key, str]:
        found = self.api._stored.items()
        return {
            (where, name): stored.now["data"]["a"]
            for (kind, where, name), stored in found
            if kind == "configmaps" and stored.now
        }

    async def step(self) -> None:
        choice = self.rng.random()
        if choice < 0.50:
            await self.write()
        elif choice < 0.55:
            await self.lose_history()
        elif choice < 0.65:
            self.api.break_watches()
        elif choice < 0.72:
            self.api.compact()
        elif choice < 0.80:
            self.api.fail(self.rng.choice(OUTAGES))
        elif choice < 0.90:
            self.api.fail(None)
        elif choice < 0.93:
            self.snapshots.append(self.api.snapshot())
        elif choice < 0.95:
            self.api.restore(self.rng.choice(self.snapshots))
            self.has_restored = True
        elif self.may_lose and self.truth():
            self.api.forget_silently(CONFIG_MAPS, self.rng.choice(sorted(self.truth()))[1], "default")
            self.has_lost = True
        await asyncio.sleep(self.rng.choice([0.0, 0.001, 0.1, 5.0, 100.0, 400.0]))

    async def write(self) -> None:
        """By somebody who reaches the server also while the reader does not: so that histories are lost."""
        down, self.api.down = self.api.down, None
        name = self.rng.choice(NAMES)
        body = CONFIG_MAPS.new(name, "default", data={"a": str(self.rng.randrange(10**6))})
        try:
            if self.rng.random() < 0.3:
                await self.api.delete(CONFIG_MAPS, name, namespace="default")
            else:
                await self.api.apply(CONFIG_MAPS, body)
        except NotFound:
            pass
        finally:
            self.api.down = down

    async def lose_history(self) -> None:
        """What is written while the reader is away is compacted before it comes back."""
        self.api.fail(self.rng.choice(OUTAGES))
        await asyncio.sleep(1.0)
        for _ in range(self.rng.randrange(1, 5)):
            await self.write()
        self.api.compact()
        self.api.fail(None)

    async def read(self, reflector: Reflector[str]) -> None:
        changes = reflector.subscribe()
        while True:
            for where, name in await changes.changed():
                value = reflector.get(name, where)
                if value is None:
                    self.copy.pop((where, name), None)
                else:
                    self.copy[where, name] = value


def text(thing: Object) -> str:
    return thing["data"]["a"]


async def live(world: World) -> Reflector[str]:
    async with Reflector(world.api, CONFIG_MAPS, project=text, tuning=TUNING, rng=world.rng) as reflector:
        reader = asyncio.create_task(world.read(reflector))
        for _ in range(STEPS):
            await world.step()
        await world.lose_history()
        # Enough for the longest back-off; for what no event tells, until the next comparison, too.
        is_untold = world.has_lost or world.has_restored
        await asyncio.sleep(60.0 + (TUNING.compare_seconds if is_untold else 0.0))
        reader.cancel()
        cached = {key: entry.value for key, entry in reflector.entries.items()}
        assert cached == world.truth()
        assert world.copy == cached
        assert reflector.problem is None
    return reflector


@pytest.mark.parametrize("seed", SEEDS)
def test_after_any_history_the_cache_is_the_truth_and_nothing_counts_as_drift(seed: int) -> None:
    world = World(seed, may_lose=False)
    reflector = run_virtual(live(world))
    if not world.has_restored:  # in a past that was replaced, differences have no other name
        assert reflector.counts.drift == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_lost_without_any_event_is_found_again(seed: int) -> None:
    run_virtual(live(World(seed, may_lose=True)))
