"""Pools become objects of Kueue, stay what their rows say, and go with them; what Kueue says comes back."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from rendering import mistakes, spec
from simulation.fake_api import ALL_KINDS, FakeApi

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.pool import Amounts, PoolSpec, Toleration
from abruzzi.contracts.reason import Reason
from abruzzi.contracts.states import StageKind
from abruzzi.kit.settings import Settings
from abruzzi.pools.queue import Place
from abruzzi_operators.controller.places import VISIBILITY
from abruzzi_operators.controller.pools import PoolController
from abruzzi_operators.executors.ledger import Queued, queued
from abruzzi_operators.executors.pending import queue_code, scheduler_code
from abruzzi_operators.executors.placing import Placer
from abruzzi_operators.kubernetes.errors import ApiError, Unreachable
from abruzzi_operators.kubernetes.quantities import amount
from abruzzi_operators.kubernetes.resources import (
    CLUSTER_QUEUES,
    LOCAL_QUEUES,
    NAMESPACES,
    RESOURCE_FLAVORS,
    TOPOLOGIES,
)
from abruzzi_operators.renderers.kueue import flavor_name, pool_objects
from abruzzi_operators.renderers.names import LABEL_STAGES_NAMESPACE

GOLDEN = Path(__file__).parent / "golden"
NAMESPACE = "abruzzi-stages"
CPU = PoolSpec(name="cpu", kind="kubernetes", quota=Amounts(cpus=1.5, memory=8 << 30))
H800 = PoolSpec(
    name="h800", kind="kubernetes", flavor="H800", ranks_per_node=8, rank=Amounts(cpus=12, memory=200 << 30, gpus=1),
    quota=Amounts(cpus=384, memory=8 << 40, gpus=32), cohort="gpus", borrow=Amounts(cpus=96, memory=2 << 40, gpus=8),
    node_labels={"abruzzi.io/flavor": "h800"}, tolerations=(Toleration(key="nvidia.com/gpu", effect="NoSchedule"),),
    topology=("topology/block", "topology/rack", "kubernetes.io/hostname"), required_topology="topology/block",
)  # fmt: skip


def cluster() -> FakeApi:
    api = FakeApi()
    api._create(NAMESPACES, NAMESPACES.new(NAMESPACE))
    return api


class Rows:
    def __init__(self, *pools: PoolSpec) -> None:
        self.pools = list(pools)
        self.status: dict[str, Mapping[str, Any]] = {}
        self.places: dict[str, Sequence[Place]] = {}

    async def list(self) -> Sequence[PoolSpec]:
        return self.pools

    async def observe(self, name: str, status: Mapping[str, Any], places: Sequence[Place] | None) -> None:
        self.status[name] = status
        if places is not None:
            self.places[name] = places


class Watched:
    """What an executor's watches know."""

    def __init__(self, *queued: Queued) -> None:
        self.known = list(queued)
        self.problem: ApiError | None = None

    async def queue(self) -> Sequence[Queued]:
        if self.problem is not None:
            raise self.problem
        return self.known

    def served_kinds(self) -> Sequence[str]:
        return ["Job", "PyTorchJob"]


def waits(attempt: str, *, priority: int = 0, minute: int = 0, queue: str = "h800", **fields: Any) -> Queued:
    since = f"2026-11-26T00:{minute:02d}:00Z"
    values = {"message": None, "reserved_at": None, "is_over": False, "owner_name": f"abruzzi-{attempt}", **fields}
    return Queued(name=f"job-{attempt}", owner_uid=attempt, queue=queue, priority=priority, since=since, **values)


def controller(api: FakeApi, rows: Rows, watched: Watched | None = None) -> PoolController:
    return PoolController(
        api, rows, watched or Watched(), namespace=NAMESPACE, now=lambda: datetime(2026, 11, 26, tzinfo=UTC)
    )


@pytest.mark.parametrize("pool", [CPU, H800], ids=lambda pool: pool.name)
def test_the_objects_are_those_in_the_golden_file_and_kueue_knows_every_field(pool: PoolSpec) -> None:
    made = [body for _, body in pool_objects(pool, namespace=NAMESPACE)]
    path = GOLDEN / f"pool-{pool.name}.yaml"
    if os.environ.get("ABRUZZI_UPDATE_GOLDEN"):
        path.write_text(yaml.safe_dump_all(made, sort_keys=False, width=120))
    assert list(yaml.safe_load_all(path.read_text())) == made
    assert [mistakes(body) for body in made] == [[]] * len(made)


def test_a_pool_without_quota_needs_nothing() -> None:
    assert pool_objects(PoolSpec(name="free", kind="kubernetes"), namespace=NAMESPACE) == []


def test_a_pool_of_all_nodes_says_so_or_the_apiserver_would_not_take_its_labels_away() -> None:
    pool = PoolSpec(name="any", kind="kubernetes", quota=Amounts(cpus=1.0, memory=1 << 30))
    [flavor] = [body for kind, body in pool_objects(pool, namespace=NAMESPACE) if kind is RESOURCE_FLAVORS]
    assert flavor["spec"] == {"nodeLabels": {}}


async def test_pools_are_applied_and_what_kueue_says_is_written_back() -> None:
    api, rows = cluster(), Rows(H800, PoolSpec(name="local", kind="local"))
    pools = controller(api, rows)
    await pools.look()
    assert (await api.get(LOCAL_QUEUES, "h800", namespace=NAMESPACE))["spec"] == {"clusterQueue": "abruzzi-h800"}
    assert rows.status["h800"]["ready"] is False
    assert "local" not in rows.status
    usage = [{"name": "abruzzi-h800", "resources": [
        {"name": "cpu", "total": "96500m", "borrowed": "0"}, {"name": "nvidia.com/gpu", "total": "40", "borrowed": "8"},
    ]}]  # fmt: skip
    condition = {"type": "Active", "status": "True", "message": "Can admit new workloads"}
    api.put_status(
        CLUSTER_QUEUES, "abruzzi-h800",
        {"conditions": [condition], "flavorsUsage": usage, "pendingWorkloads": 3, "admittedWorkloads": 5},
    )  # fmt: skip
    await pools.look()
    status = rows.status["h800"]
    assert (status["ready"], status["message"], status["pending"], status["admitted"]) == (True, "", 3, 5)
    assert status["used"] == {"cpu": 96.5, "nvidia.com/gpu": 40}
    assert status["borrowed"] == {"nvidia.com/gpu": 8}
    assert status["kinds"] == ["Job", "PyTorchJob"]


async def test_without_kueues_own_word_the_queue_is_ordered_by_priority_and_age_and_foreign_workloads_count() -> None:
    api, rows = cluster(), Rows(H800, CPU)
    watched = Watched(
        waits("a", minute=3), waits("b", minute=1), waits("c", priority=5, minute=9), waits("else", minute=2, owner_name="somebodys-job"),
        waits("in", reserved_at="2026-11-26T00:00:00Z"), waits("over", is_over=True), waits("other", queue="cpu"),
    )  # fmt: skip
    await controller(api, rows, watched).look()
    assert [(p.attempt_id, p.position, p.ordered_by) for p in rows.places["h800"]] == [
        ("c", 1, "priority"), ("b", 2, "priority"), ("a", 4, "priority"),
    ]  # fmt: skip
    assert [p.attempt_id for p in rows.places["cpu"]] == ["other"]


async def test_kueues_own_positions_are_taken_where_they_are_served_and_who_is_new_comes_last() -> None:
    api, rows = cluster(), Rows(H800)
    counted = [("job-b", NAMESPACE), ("job-b", "elsewhere"), ("job-a", NAMESPACE)]
    api.paths[VISIBILITY.format(pool="h800")] = {
        "items": [
            {"metadata": {"name": name, "namespace": namespace}, "positionInClusterQueue": number}
            for number, (name, namespace) in enumerate(counted)
        ]
    }
    await controller(api, rows, Watched(waits("a"), waits("b", minute=5), waits("new", priority=9))).look()
    assert [(p.attempt_id, p.position, p.ordered_by) for p in rows.places["h800"]] == [
        ("b", 1, "kueue"), ("a", 3, "kueue"), ("new", 4, "kueue"),
    ]  # fmt: skip


async def test_while_nobody_knows_who_waits_what_was_known_stays_and_pools_are_looked_after() -> None:
    api, rows, watched = cluster(), Rows(H800), Watched(waits("a"))
    pools = controller(api, rows, watched)
    await pools.look()
    watched.problem = Unreachable("the watch does not follow")
    api.put_status(CLUSTER_QUEUES, "abruzzi-h800", {"pendingWorkloads": 7})
    await pools.look()
    assert [p.attempt_id for p in rows.places["h800"]] == ["a"]
    assert rows.status["h800"]["pending"] == 7


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor h800, 8 more needed", Reason.WAITS_FOR_QUOTA),
        ("couldn't assign flavors to pod set worker: topology \"h800\" doesn't allow to fit any of 8 pod(s)", Reason.WAITS_FOR_TOPOLOGY),
        ("couldn't assign flavors to pod set main: untolerated taint {nvidia.com/gpu  NoSchedule} in flavor h800", Reason.WAITS_FOR_TAINT),
        ("", Reason.WAITS_IN_QUEUE),
    ],
)  # fmt: skip
def test_kueues_word_becomes_a_reason(message: str, code: Reason) -> None:
    assert queue_code(message) is code


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("0/5 nodes are available: 3 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint {gone: }.", Reason.WAITS_FOR_NODES),
        ("0/5 nodes are available: 5 node(s) had untolerated taint {nvidia.com/gpu: }.", Reason.WAITS_FOR_TAINT),
        ("0/5 nodes are available: 5 node(s) didn't match Pod's node affinity/selector.", Reason.WAITS_FOR_NODES),
    ],
)  # fmt: skip
def test_the_schedulers_word_becomes_a_reason(message: str, code: Reason) -> None:
    assert scheduler_code(message) is code


def test_a_workload_that_was_put_out_queues_by_the_time_of_that() -> None:
    thing = {
        "metadata": {"name": "w", "creationTimestamp": "2026-11-26T00:00:00Z", "ownerReferences": [{"uid": "u", "name": "abruzzi-a"}]},
        "spec": {"queueName": "h800", "priority": 3},
        "status": {"conditions": [
            {"type": "QuotaReserved", "status": "False", "message": "preempted", "lastTransitionTime": "2026-11-26T01:00:00Z"},
            {"type": "Evicted", "status": "True", "lastTransitionTime": "2026-11-26T01:00:01Z"},
        ]},
    }  # fmt: skip
    found = queued(thing)
    assert found is not None
    assert (found.since, found.priority, found.reserved_at, found.message) == (
        "2026-11-26T01:00:01Z",
        3,
        None,
        "preempted",
    )
    thing["status"]["conditions"][0]["status"] = "True"
    assert queued(thing).reserved_at == "2026-11-26T01:00:00Z"
    assert queued({"metadata": {"name": "w", "creationTimestamp": "2026-11-26T00:00:00Z"}}) is None


async def test_nothing_is_written_while_nothing_changes_and_what_is_removed_comes_back() -> None:
    api, rows = cluster(), Rows(CPU)
    pools = controller(api, rows)
    await pools.look()
    await pools.look()
    assert {what: times for what, times in api.calls.items() if what[0] != "list" and what[0] != "get"} == {
        ("apply", kind): 1 for kind in ("resourceflavors", "clusterqueues", "localqueues")
    }
    await api.delete(CLUSTER_QUEUES, "abruzzi-cpu")
    await pools.look()
    assert "is being made again" in rows.status["cpu"]["message"]
    await pools.look()
    assert await api.get(CLUSTER_QUEUES, "abruzzi-cpu")


async def test_the_objects_of_a_removed_pool_go_and_those_of_others_stay() -> None:
    api, rows = cluster(), Rows(CPU, H800)
    pools = controller(api, rows)
    await pools.look()
    await api.create(RESOURCE_FLAVORS, RESOURCE_FLAVORS.new("somebody-elses", spec={}))
    rows.pools = [CPU]
    await pools.look()
    assert [o["metadata"]["name"] for o in await api.list(RESOURCE_FLAVORS)] == ["abruzzi-cpu", "somebody-elses"]
    assert not await api.list(TOPOLOGIES)
    assert [o["metadata"]["name"] for o in await api.list(LOCAL_QUEUES)] == ["cpu"]


async def test_two_platforms_of_a_cluster_leave_each_others_queues_alone_and_the_second_of_a_name_is_told() -> None:
    api, first, second = cluster(), Rows(CPU, H800), Rows(CPU)
    api._create(NAMESPACES, NAMESPACES.new("other-stages"))
    ours = controller(api, first)
    theirs = PoolController(
        api, second, Watched(), namespace="other-stages", now=lambda: datetime(2026, 11, 26, tzinfo=UTC)
    )
    await ours.look()
    await theirs.look()
    assert [o["metadata"]["name"] for o in await api.list(CLUSTER_QUEUES)] == ["abruzzi-cpu", "abruzzi-h800"]
    assert second.status["cpu"]["ready"] is False
    assert second.status["cpu"]["message"] == (
        f"ResourceFlavor abruzzi-cpu belongs to the platform whose stages run in namespace {NAMESPACE}. "
        "Give this pool, or its cohort, a name of its own, or delete that object if its platform is no more."
    )
    second.pools = [CPU.model_copy(update={"name": "other-cpu"})]
    await theirs.look()
    first.pools = []
    await ours.look()
    for kind, names in ((LOCAL_QUEUES, ["other-cpu"]), (CLUSTER_QUEUES, ["abruzzi-other-cpu"]), (RESOURCE_FLAVORS, ["abruzzi-other-cpu"])):  # fmt: skip
        assert [o["metadata"]["name"] for o in await api.list(kind)] == names
    second.pools = [CPU]  # free now
    await theirs.look()
    assert (await api.get(LOCAL_QUEUES, "cpu", namespace="other-stages"))["spec"] == {"clusterQueue": "abruzzi-cpu"}


async def test_objects_of_a_version_that_did_not_say_whose_they_are_are_taken_over_by_the_pool_of_that_name() -> None:
    api, rows = cluster(), Rows(CPU)
    for resource, body in pool_objects(CPU, namespace=NAMESPACE):
        del body["metadata"]["labels"][LABEL_STAGES_NAMESPACE]
        await api.apply(resource, body)
    await controller(api, rows).look()
    rows.pools = []
    await controller(api, rows).look()
    assert [await api.list(kind) for kind in (LOCAL_QUEUES, CLUSTER_QUEUES, RESOURCE_FLAVORS)] == [[], [], []]


@pytest.mark.parametrize("verb", ["list", "delete"])
async def test_who_may_not_remove_what_is_left_of_a_pool_keeps_the_others_going(verb: str) -> None:
    api, rows = cluster(), Rows(CPU, H800)
    pools = controller(api, rows)
    await pools.look()
    api.forbidden = {(verb, "localqueues"), (verb, "clusterqueues")}
    rows.pools, rows.status = [H800], {}
    await pools.look()
    assert rows.status["h800"]["message"] == "Kueue has not looked at it yet."
    assert [o["metadata"]["name"] for o in await api.list(RESOURCE_FLAVORS)] == [flavor_name(H800)]
    api.forbidden = set()
    await pools.look()
    assert [o["metadata"]["name"] for o in await api.list(CLUSTER_QUEUES)] == ["abruzzi-h800"]


def test_pools_of_a_cohort_share_a_flavor_where_their_nodes_are_the_same_because_kueue_lends_within_one_alone() -> None:
    peer = H800.model_copy(
        update={"name": "h800-night", "quota": Amounts(cpus=96, memory=2 << 40, gpus=8), "borrow": None}
    )
    assert flavor_name(peer) == flavor_name(H800)
    assert _shared(peer) == _shared(H800)
    for changes in (
        {"node_labels": {"abruzzi.io/flavor": "a100"}},
        {"tolerations": ()},
        {"cohort": "others"},
        {"cohort": None},
    ):
        assert flavor_name(H800.model_copy(update=changes)) != flavor_name(H800)


def _shared(pool: PoolSpec) -> list[Any]:
    return [body for kind, body in pool_objects(pool, namespace=NAMESPACE) if kind in (RESOURCE_FLAVORS, TOPOLOGIES)]


async def test_what_pools_share_stays_until_the_last_of_them_is_gone() -> None:
    peer = H800.model_copy(update={"name": "h800-night"})
    api, rows = cluster(), Rows(H800, peer)
    pools = controller(api, rows)
    await pools.look()
    for left in ([peer], []):
        rows.pools = left
        await pools.look()
        names = [o["metadata"]["name"] for kind in (RESOURCE_FLAVORS, TOPOLOGIES) for o in await api.list(kind)]
        assert names == [flavor_name(H800)] * 2 * len(left)


async def test_a_pool_that_joins_a_cohort_lets_go_of_its_own_flavor() -> None:
    alone = H800.model_copy(update={"cohort": None, "borrow": None})
    api, rows = cluster(), Rows(alone)
    pools = controller(api, rows)
    await pools.look()
    rows.pools = [H800]
    await pools.look()
    assert [o["metadata"]["name"] for o in await api.list(RESOURCE_FLAVORS)] == [flavor_name(H800)]
    [group] = (await api.get(CLUSTER_QUEUES, "abruzzi-h800"))["spec"]["resourceGroups"]
    assert [flavor["name"] for flavor in group["flavors"]] == [flavor_name(H800)]


async def test_without_namespace_kueue_or_apiserver_somebody_is_told() -> None:
    rows = Rows(CPU)
    await controller(FakeApi(), rows).look()
    assert rows.status["cpu"]["ready"] is False
    assert NAMESPACE in rows.status["cpu"]["message"]
    bare = FakeApi(served=[kind for kind in ALL_KINDS if kind.group != "kueue.x-k8s.io"])
    await controller(bare, rows).look()
    assert rows.status["cpu"]["ready"] is False
    assert "no Kueue" in rows.status["cpu"]["message"]
    away = FakeApi()
    pools = controller(away, rows)
    await pools.look()
    away.fail(Unreachable("the apiserver does not answer"))
    with pytest.raises(Unreachable):
        await pools.look()


async def test_an_attempts_place_is_its_pools() -> None:
    async def read(name: str) -> PoolSpec:
        return {"h800": H800, "local": PoolSpec(name="local", kind="local")}[name]

    place = Placer(Settings(stage_image="jobs:1", namespace=NAMESPACE), read, api_url="http://api")
    config = {"resources": {"pool": "h800", "ranks": 16, "threads": 4}}
    placed = await place(spec(StageKind.PRETRAIN, ranks=16, config=config), ["gpu-3"])
    assert (placed.queue, placed.ranks_per_node, placed.resources.gpus, placed.resources.cpu_cores) == ("h800", 8, 1, 4)
    assert placed.excluded_nodes == ("gpu-3",)
    assert placed.required_topology == "topology/block"
    anywhere = await place(spec(StageKind.PRETRAIN, config={"resources": {"pool": "local"}}), [])
    assert (anywhere.queue, anywhere.node_selector) == ("", {})
    with pytest.raises(AbruzziError, match="64 GPUs") as refused:
        await place(spec(StageKind.PRETRAIN, ranks=64, config=config), [])
    assert refused.value.code == "never_fits"


def test_a_pool_of_a_cohort_may_borrow_as_much_as_it_says_or_what_there_is() -> None:
    assert H800.never_fits(40) is None
    assert "41 GPUs" in (H800.never_fits(41) or "")
    assert H800.model_copy(update={"borrow": None}).never_fits(4000) is None


@pytest.mark.parametrize(("written", "number"), [("500m", 0.5), ("2Gi", 2 << 30), ("3", 3), ("1e3", 1000)])
def test_quantities_are_read_as_kubernetes_writes_them(written: str, number: float) -> None:
    assert amount(written) == number
