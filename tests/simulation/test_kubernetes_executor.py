"""The Kubernetes executor keeps the contract of all executors, on a cluster in memory. (tests/cluster holds it to a real one.)"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

pytest.register_assert_rewrite("simulation.executor_contract")
from simulation.cluster_place import ClusterPlace, open_cluster_place  # noqa: E402
from simulation.executor_contract import EndContract, LifeContract  # noqa: E402


@pytest.fixture
async def place() -> AsyncIterator[ClusterPlace]:
    async with open_cluster_place() as made:
        yield made


class TestLife(LifeContract):
    pass


class TestEnd(EndContract):
    pass
