"""What the Kubernetes executor tells the engine about the room for an elastic stage, and that another executor tells the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from simulation.cluster_place import ClusterPlace, open_cluster_place

CONFIG = {"container": {"command": ["true"]}, "elastic": {"min_ranks": 1}}


@pytest.fixture
async def place() -> AsyncIterator[ClusterPlace]:
    async with open_cluster_place() as made:
        yield made


def node(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "status": {"allocatable": {"cpu": "2", "memory": "64Gi"}}}


async def test_room_follows_the_nodes_and_what_other_attempts_hold(place: ClusterPlace) -> None:
    place.nodes = [node("node-1"), node("node-2")]
    elastic, other = place.spec(config=CONFIG), place.spec()
    for spec in (elastic, other):
        await place.executor.create(spec)
        await place.until_working(spec)
    assert (await place.look(elastic)).room == 3, "two nodes of two ranks, one of them another stage's"
    assert (await place.look(other)).room is None, "it is not elastic"
    place.nodes = [node("node-2")]
    assert (await place.look(elastic)).room == 2, "node-1 takes no pods any more"
    place.renew()
    assert (await place.until(elastic, lambda seen: seen.room is not None)).room == 2
    place.nodes = None
    assert (await place.look(elastic)).room is None
