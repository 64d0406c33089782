"""Leases and dates go by Postgres' clock, not by those of the machines around it."""

from __future__ import annotations

import time

from sqlalchemy import select

from abruzzi.contracts.stage import DirectoryStore as DirectoryConfig
from abruzzi.engine.ports import Lease
from abruzzi.kit.clock import DatabaseClock
from abruzzi.kit.database_time import ask_time
from abruzzi.kit.db import transaction
from abruzzi.runs import submit
from abruzzi.runs.models import RunRow
from abruzzi.runs.run_store import PostgresRunStore
from abruzzi.store import DirectoryStore

HOUR = 3600.0


def clock_off_by(seconds: float) -> DatabaseClock:
    return DatabaseClock(wall=lambda: time.time() + seconds)


async def leased(store: PostgresRunStore, owner: str) -> Lease:
    """As soon as it is due by the store's clock, which may be some milliseconds behind another's."""
    deadline = time.monotonic() + 240.0
    while not (found := await store.lease(owner, limit=9, ttl_seconds=60)):
        assert time.monotonic() < deadline, "it is not due"
    return found[0]


async def test_a_clock_that_is_off_is_set_by_the_database(sessions) -> None:
    clock = clock_off_by(-HOUR)
    assert abs(clock.seconds() - time.time()) > HOUR / 2
    assert await ask_time(sessions, clock)
    assert abs(clock.seconds() - time.time()) < HOUR / 2


def test_a_jump_of_the_machines_clock_and_a_slow_answer_do_little_harm() -> None:
    wall, ticks = [5_000.0], [100.0]
    clock = DatabaseClock(wall=lambda: wall[0], ticks=lambda: ticks[0])
    clock.set(9_000.0, asked_at=100.0, answered_at=100.4)
    wall[0] += 1e6
    ticks[0] += 10.0
    assert clock.seconds() == 9_000.0 + 10.0 - 0.2


async def test_controllers_an_hour_apart_neither_steal_a_lease_nor_sleep_through_a_date(sessions, store_root) -> None:
    """And a run that an API in the future submits is due at once."""
    config = DirectoryConfig(root=str(store_root))
    clocks = {name: clock_off_by(off) for name, off in (("slow", -HOUR), ("right", 0.0), ("fast", HOUR))}
    for clock in clocks.values():
        await ask_time(sessions, clock)
    stores = {n: PostgresRunStore(sessions, DirectoryStore(store_root), config, c) for n, c in clocks.items()}
    recipe = (
        'version = 1\nname = "one"\n[[stage]]\nid = "a"\nkind = "container"\n[stage.container]\ncommand = ["true"]\n'
    )
    async with transaction(sessions) as session:
        await submit.submit(
            session, project_id="default", objects=DirectoryStore(store_root), recipe_toml=recipe, actor="me", now=clocks["fast"].now()
        )  # fmt: skip
    lease = await leased(stores["right"], "right")
    assert await stores["fast"].lease("fast", limit=9, ttl_seconds=60) == []
    await stores["right"].release(lease, wake_at=clocks["right"].seconds())
    again = await leased(stores["slow"], "slow")
    assert abs(again.expires_at - time.time() - 60) < HOUR / 2
    async with transaction(sessions) as session:
        [expires_at] = (await session.execute(select(RunRow.lease_expires_at))).scalars()
    assert expires_at is not None
    assert abs(expires_at.timestamp() - time.time() - 60) < HOUR / 2
