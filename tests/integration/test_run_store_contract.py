"""The store over Postgres keeps the contract that the simulation's store keeps, and the two agree on any history."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("simulation.run_store_contract", "simulation.run_store_histories")
from postgres_ground import PostgresGround  # noqa: E402
from simulation.run_store_contract import LeaseContract, RequestContract, WriteContract  # noqa: E402


@pytest.fixture
def ground(world) -> PostgresGround:
    return PostgresGround(world)


class TestLeases(LeaseContract):
    pass


class TestWrites(WriteContract):
    pass


class TestRequests(RequestContract):
    pass
