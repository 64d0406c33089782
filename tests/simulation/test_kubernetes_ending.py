"""How an attempt's objects go: nothing that comes late lives on, and nobody waits for a dead node. On a cluster in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from simulation.cluster_place import ClusterPlace, open_cluster_place
from simulation.memory_cluster import NAMESPACE

from abruzzi.contracts.states import StageKind
from abruzzi.engine.view import Phase
from abruzzi_operators.executors.ending import Told
from abruzzi_operators.executors.node_words import NodeWord
from abruzzi_operators.executors.pod_ends import is_over
from abruzzi_operators.kubernetes.errors import Unreachable
from abruzzi_operators.kubernetes.resources import PODS, Object

FOREIGN = {"container": {"image": "docker.io/library/busybox:1", "command": ["true"]}}


@pytest.fixture
async def place() -> AsyncIterator[ClusterPlace]:
    async with open_cluster_place() as made:
        yield made


async def living(place: ClusterPlace, attempt_id: str) -> list[Object]:
    return [pod for pod in await place.cluster.pods(attempt_id) if not is_over(pod)]


async def test_a_removal_waits_for_pods_that_the_apiserver_has_and_the_watch_has_not_brought(
    place: ClusterPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an operator made in the moment before its workload went."""
    spec = place.spec(kind=StageKind.PRETRAIN, world_size=2, config={})
    await place.executor.create(spec)
    await place.until_working(spec)
    monkeypatch.setattr(place.executor._ledger, "living_pods", lambda attempt_id: [])
    await place.executor.remove(spec.attempt_id)
    assert await living(place, spec.attempt_id) == []
    assert place.cluster.started.count(spec.attempt_id) == 2, "and none was made anew"


async def test_the_end_of_a_pod_that_has_ended_is_known_without_asking_for_more(place: ClusterPlace) -> None:
    spec = place.spec()
    await place.executor.create(spec)
    await place.until_working(spec)
    place.finish(spec)
    await place.until_exited(spec)
    asked: list[str] = []
    ask = place.executor._ending.living_pods

    async def noted(attempt_id: str) -> list[Object]:
        asked.append(attempt_id)
        return await ask(attempt_id)

    place.executor._ending.living_pods = noted  # type: ignore[method-assign]
    await place.executor.remove(spec.attempt_id)
    assert asked == []


async def test_pods_are_told_to_end_together_and_those_that_could_not_be_told_once_more(
    place: ClusterPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = place.spec(kind=StageKind.PRETRAIN, world_size=8, config={})
    await place.executor.create(spec)
    await place.until_working(spec)
    place.cluster.kubelet_is_silent = True
    pods, called, told = await place.cluster.pods(spec.attempt_id), list[str](), Told()
    assert len(pods) == 8
    at_once = most = 0

    async def delete(resource, name, **options) -> None:  # type: ignore[no-untyped-def]
        nonlocal at_once, most
        called.append(name)
        is_third = len(called) == 3
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        if is_third:
            raise Unreachable("the connection is gone")

    monkeypatch.setattr(place.cluster.api, "delete", delete)
    with pytest.raises(Unreachable):
        await place.executor._ending.delete_pods(pods, grace_seconds=5.0, told=told)
    assert (len(called), most) == (8, 8)
    await place.executor._ending.delete_pods(pods, grace_seconds=5.0, told=told)
    assert len(called) == 9
    place.words["node-1"] = NodeWord(lost="Node node-1 is lost.")
    await place.executor._ending.delete_pods(pods, grace_seconds=5.0, told=told)
    assert len(called) == 17, "they get less time now"


async def test_the_logs_of_a_lost_node_are_not_waited_for(place: ClusterPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = place.spec(config=FOREIGN)
    await place.executor.create(spec)
    await place.until_working(spec)
    place.cluster.kubelet_is_silent = True
    place.words["node-1"] = NodeWord(lost="Node node-1 is lost.")
    await place.until_exited(spec)

    async def read(namespace: str, pod: str, **options) -> bytes:  # type: ignore[no-untyped-def]
        raise AssertionError("nobody answers there")

    monkeypatch.setattr(place.cluster.api, "read_log", read)
    await place.executor.remove(spec.attempt_id)
    assert await place.cluster.api.list(PODS, namespace=NAMESPACE) == []


async def test_where_one_pod_has_failed_the_others_are_stopped_and_that_one_is_left_to_end(
    place: ClusterPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kubelet tells a container's end before the pod's. Deleting the pod in between takes its exit code away from the next controller."""
    spec = place.spec(kind=StageKind.PRETRAIN, world_size=2, config={})
    await place.executor.create(spec)
    await place.until_working(spec)
    place.cluster.kubelet_is_silent = True
    failed, other = sorted(place.executor._ledger.living_pods(spec.attempt_id), key=lambda pod: pod["metadata"]["name"])
    ended = {"name": "stage", "state": {"terminated": {"exitCode": 64, "reason": "Error"}}}
    failed["status"]["containerStatuses"] = [ended]
    stopped: list[str] = []

    async def delete_pods(pods, **_) -> None:  # type: ignore[no-untyped-def]
        stopped.extend(pod["metadata"]["name"] for pod in pods)

    monkeypatch.setattr(place.executor._ending, "delete_pods", delete_pods)
    assert (await place.look(spec)).phase is Phase.RUNNING
    assert stopped == [other["metadata"]["name"]]
