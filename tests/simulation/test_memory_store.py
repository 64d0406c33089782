"""The simulation's store keeps the contract that Postgres keeps."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("simulation.run_store_contract")
from simulation.memory_ground import MemoryGround  # noqa: E402
from simulation.run_store_contract import LeaseContract, RequestContract, WriteContract  # noqa: E402


@pytest.fixture
def ground() -> MemoryGround:
    return MemoryGround()


class TestLeases(LeaseContract):
    pass


class TestWrites(WriteContract):
    pass


class TestRequests(RequestContract):
    pass
