"""The store over Postgres keeps the contract that the simulation's store keeps, and the two agree on any history."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("simulation.run_store_contract", "simulation.run_store_histories")
from postgres_ground import PostgresGround  # noqa: E402
from simulation.memory_ground import MemoryGround  # noqa: E402
from simulation.run_store_contract import LeaseContract, RequestContract, WriteContract  # noqa: E402
from simulation.run_store_histories import live_through  # noqa: E402


@pytest.fixture
def ground(world) -> PostgresGround:
    return PostgresGround(world)


class TestLeases(LeaseContract):
    pass


class TestWrites(WriteContract):
    pass


class TestRequests(RequestContract):
    pass


@pytest.mark.parametrize("seed", range(8))
async def test_it_tells_any_history_as_the_simulations_store_does(ground: PostgresGround, seed: int) -> None:
    ours = await live_through(ground, seed)
    theirs = await live_through(MemoryGround(), seed)
    for number, (mine, simulated) in enumerate(zip(ours, theirs, strict=True)):
        assert mine == simulated, f"seed {seed} parts at {number}, after {[name for name, _ in ours[:number]]}"
