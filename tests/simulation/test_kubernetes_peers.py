"""Pods of one attempt may meet by a NetworkPolicy of their own, which comes before them and goes with them. (What a CNI makes of it is the cluster's.)"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from simulation.cluster_place import ClusterPlace, open_cluster_place
from simulation.memory_cluster import NAMESPACE

from abruzzi.contracts.stage import StageSpec
from abruzzi.engine.view import Phase
from abruzzi_operators.kubernetes.errors import Unreachable
from abruzzi_operators.kubernetes.resources import NETWORK_POLICIES, Object


@pytest.fixture
async def place() -> AsyncIterator[ClusterPlace]:
    async with open_cluster_place() as made:
        made.peer_policies = True
        made.renew()
        yield made


async def policies(place: ClusterPlace) -> list[Object]:
    return list(await place.cluster.api.list(NETWORK_POLICIES, namespace=NAMESPACE))


def two_nodes(place: ClusterPlace) -> StageSpec:
    return place.spec(world_size=2)


async def test_pods_of_an_attempt_reach_each_other_and_no_others(place: ClusterPlace) -> None:
    first, second = two_nodes(place), two_nodes(place)
    for spec in (first, second):
        await place.executor.create(spec)
    made = {policy["metadata"]["name"]: policy for policy in await policies(place)}
    assert sorted(made) == [f"abruzzi-{first.attempt_id}", f"abruzzi-{second.attempt_id}"]
    own = {"podSelector": {"matchLabels": {"abruzzi.io/attempt": first.attempt_id}}}
    assert made[f"abruzzi-{first.attempt_id}"]["spec"] == {
        **own, "policyTypes": ["Ingress", "Egress"], "ingress": [{"from": [own]}], "egress": [{"to": [own]}],
    }  # fmt: skip
    await place.until_working(first)
    pods = await place.cluster.pods(first.attempt_id)
    assert {pod["metadata"]["labels"]["abruzzi.io/attempt"] for pod in pods} == {first.attempt_id}


async def test_the_policy_goes_with_its_attempt(place: ClusterPlace) -> None:
    spec = two_nodes(place)
    await place.executor.create(spec)
    await place.until_working(spec)
    place.finish(spec)
    await place.until_exited(spec)
    await place.executor.remove(spec.attempt_id)
    assert (await place.look(spec)).phase is Phase.GONE
    assert await policies(place) == []


async def test_a_single_pod_needs_none_and_costs_no_call_more(place: ClusterPlace) -> None:
    spec = place.spec()
    await place.executor.create(spec)
    await place.until_working(spec)
    place.finish(spec)
    await place.until_exited(spec)
    await place.executor.remove(spec.attempt_id)
    assert {verb for verb, plural in place.cluster.api.calls if plural == "networkpolicies"} == set()


async def test_without_policies_of_the_namespace_none_is_made(place: ClusterPlace) -> None:
    place.peer_policies = False
    place.renew()
    await place.executor.create(two_nodes(place))
    assert await policies(place) == []


async def test_attempts_from_before_the_policies_get_theirs_when_a_controller_starts(place: ClusterPlace) -> None:
    place.peer_policies = False
    place.renew()
    spec = two_nodes(place)
    await place.executor.create(spec)
    await place.until_working(spec)
    place.peer_policies = True
    place.renew()
    await place.look(spec)
    assert [policy["metadata"]["labels"]["abruzzi.io/attempt"] for policy in await policies(place)] == [spec.attempt_id]


async def test_a_crash_between_policy_and_workload_is_healed_by_creating_again(place: ClusterPlace) -> None:
    spec = two_nodes(place)
    await place.executor.create(place.spec())  # its watches stand

    def crash(verb, resource, new, old) -> str | None:  # type: ignore[no-untyped-def]
        if resource.kind == "PyTorchJob" and verb == "create":
            raise Unreachable("away", reason="ReadTimeout")
        return None

    place.cluster.api.admission.append(crash)
    with pytest.raises(Unreachable):
        await place.executor.create(spec)
    assert len(await policies(place)) == 1
    place.cluster.api.admission.clear()
    await place.executor.create(spec)
    await place.until_working(spec)
    assert len(await policies(place)) == 1
