"""Pods that the cluster will not have: only events say so. (tests/cluster/test_cluster_executor.py hears a real one.)"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from simulation.cluster_place import ClusterPlace, open_cluster_place
from simulation.memory_cluster import NAMESPACE

from abruzzi.contracts.reason import Reason
from abruzzi.engine.view import Phase
from abruzzi_operators.executors.assess import Facts, assess
from abruzzi_operators.executors.refusals import is_refusal, told
from abruzzi_operators.kubernetes.resources import EVENTS, Object

QUOTA = 'Error creating: pods "abruzzi-x-1-abcde" is forbidden: exceeded quota: few, requested: pods=1, used: pods=0, limited: pods=0'
SAID = f"The cluster refuses its pods: {QUOTA.removeprefix('Error creating: ')}."
REFUSED = "Failed to create head Pod stages/w-x-head, admission webhook denied the request: no"


@pytest.fixture
async def place() -> AsyncIterator[ClusterPlace]:
    async with open_cluster_place() as made:
        made.cluster.operators_are_slow = True
        yield made


def event(kind: str, name: str, message: str = QUOTA, *, reason: str = "FailedCreate", to: str = "") -> Object:
    what = {"kind": kind, "name": name, "namespace": NAMESPACE}
    return EVENTS.new(f"{to or name}.1", NAMESPACE, involvedObject=what, type="Warning", reason=reason, message=message)


async def test_a_job_whose_pods_are_refused_says_why_until_it_has_them(place: ClusterPlace) -> None:
    spec = place.spec()
    await place.executor.create(spec)
    assert (await place.look(spec)).reason is None
    name = f"abruzzi-{spec.attempt_id}"
    await place.cluster.api.create(EVENTS, event("Pod", f"{name}-abcde"))
    await place.cluster.api.create(EVENTS, event("Job", name, "a volume is slow", reason="FailedMount", to="other"))
    await place.cluster.api.create(EVENTS, event("Job", name))
    seen = await place.until(spec, lambda seen: seen.reason is not None)
    assert (seen.phase, seen.waits_for, seen.reason) == (Phase.PENDING, Reason.WAITS_FOR_PODS, SAID)
    place.cluster.operators_are_slow = False
    assert (await place.until_working(spec)).reason is None


async def test_it_is_forgotten_with_its_event(place: ClusterPlace) -> None:
    spec = place.spec()
    await place.executor.create(spec)
    made = event("Job", f"abruzzi-{spec.attempt_id}")
    await place.cluster.api.create(EVENTS, made)
    await place.until(spec, lambda seen: seen.reason is not None)
    await place.cluster.api.delete(EVENTS, made["metadata"]["name"], namespace=NAMESPACE)
    assert (await place.until(spec, lambda seen: seen.reason is None)).phase is Phase.PENDING


async def test_whoever_may_not_read_events_knows_less_and_loses_nothing(place: ClusterPlace) -> None:
    del place.cluster.api.served[EVENTS.full_name]
    spec = place.spec()
    await place.executor.create(spec)
    place.cluster.operators_are_slow = False
    await place.until_working(spec)
    place.finish(spec)
    assert (await place.until_exited(spec)).exit_code == 0


@pytest.mark.parametrize(
    ("reason", "counts"),
    [("FailedCreate", True), ("FailedCreatePod", True), ("FailedToCreateHeadPod", True), ("FailedMount", False), ("BackoffLimitExceeded", False)],
)  # fmt: skip
def test_reasons_of_the_operators(reason: str, counts: bool) -> None:
    assert is_refusal(reason) is counts


def workload(**labels: str) -> Object:
    return {"metadata": {"name": "w", "uid": "u", "labels": labels, "annotations": {"abruzzi.io/nodes": "2"}}}


def test_a_workload_that_still_queues_waits_for_its_queue_and_not_for_what_was_once_refused() -> None:
    queued = workload(**{"kueue.x-k8s.io/queue-name": "gpus"})
    waiting = assess(Facts(queued, (), {}, refusal=told(REFUSED))).seen
    admitted = assess(Facts(queued, (), {}, refusal=told(REFUSED), reserved_at=1.0)).seen
    assert waiting is not None
    assert admitted is not None
    assert waiting.reason == "It waits in queue 'gpus'."
    assert admitted.reason == f"The cluster refuses its pods: {REFUSED}."


def test_a_gang_of_which_some_pods_are_refused_says_so() -> None:
    first = {
        "metadata": {"name": "p", "uid": "p", "labels": {}},
        "spec": {"nodeName": "n"},
        "status": {"phase": "Pending"},
    }
    seen = assess(Facts(workload(), (first,), {}, refusal=told(REFUSED))).seen
    assert seen is not None
    assert (seen.phase, seen.reason) == (Phase.PENDING, f"The cluster refuses its pods: {REFUSED}.")
