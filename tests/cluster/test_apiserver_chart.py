"""The Helm chart before a real apiserver: every object under strict validation, every pod under restricted Pod Security, and rights that are enough."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from chart_render import CHART, NAMESPACE, SETS, helm, needs_helm, pods, rendered, values
from cluster.apiserver import ApiServer, needs_apiserver
from rendering import placement, spec

from abruzzi.contracts.pool import Amounts, PoolSpec
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import StageKind
from abruzzi.engine.view import Phase
from abruzzi.pools.queue import Place
from abruzzi_operators.controller.pools import PoolController
from abruzzi_operators.executors.kubernetes import KubernetesExecutor
from abruzzi_operators.executors.ledger import Queued
from abruzzi_operators.executors.peers import peer_policy
from abruzzi_operators.kubernetes import projections
from abruzzi_operators.kubernetes.access import Access
from abruzzi_operators.kubernetes.errors import ApiError, Denied, Invalid, NotFound
from abruzzi_operators.kubernetes.reflector import Reflector
from abruzzi_operators.kubernetes.resources import (
    CLUSTER_QUEUES,
    CONFIG_MAPS,
    JOB_SETS,
    JOBS,
    LEASES,
    LOCAL_QUEUES,
    NAMESPACES,
    NETWORK_POLICIES,
    NODES,
    PODS,
    PYTORCH_JOBS,
    RAY_JOBS,
    RESOURCE_FLAVORS,
    SECRETS,
    TOPOLOGIES,
    TRAIN_JOBS,
    TRAINING_RUNTIMES,
    WORKLOADS,
    Object,
    Resource,
)
from abruzzi_operators.kubernetes.rest_api import RestApi
from abruzzi_operators.nodes.marks import mark_patch
from abruzzi_operators.nodes.signals import TAINT_DRAIN
from abruzzi_operators.renderers import Placement
from abruzzi_operators.renderers.names import attempt_labels
from abruzzi_operators.renderers.pod import pod_template
from abruzzi_operators.renderers.trainjob import training_runtime

pytestmark = [needs_apiserver, needs_helm]

STAGES, SANDBOXES = "abz-stages", "abz-sandboxes"
SECONDS = 240.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("apiserver")) as made:
        for name in (NAMESPACE, STAGES, SANDBOXES, "training"):
            namespace = NAMESPACES.new(name)
            namespace["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}
            made.apply(f"/api/v1/namespaces/{name}", namespace)
        made.serve(CLUSTER_QUEUES, LOCAL_QUEUES, RESOURCE_FLAVORS, TOPOLOGIES, WORKLOADS, TRAINING_RUNTIMES)
        made.serve(PYTORCH_JOBS, RAY_JOBS, JOB_SETS)  # with TrainJob: the executor follows all kinds
        made.serve(TRAIN_JOBS, spec_fields=("runtimePatches",))
        yield made


@pytest.fixture
async def admin(server: ApiServer) -> AsyncIterator[RestApi]:
    async with RestApi(Access(kubeconfig=server.kubeconfig)) as made:
        yield made


def resource_of(thing: Object) -> Resource:
    group, _, version = thing["apiVersion"].rpartition("/")
    plural = f"{thing['kind'].lower()}s".replace("policys", "policies")
    cluster_wide = ("Namespace", "ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")  # fmt: skip
    return Resource(group, version, plural, thing["kind"], namespaced=thing["kind"] not in cluster_wide)


def things(name: str) -> list[Object]:
    """In their namespaces; without what the Prometheus operator brings."""
    found = [thing for thing in rendered(name) if thing["kind"] != "ServiceMonitor"]
    for thing in found:
        if resource_of(thing).namespaced:
            thing["metadata"].setdefault("namespace", NAMESPACE)
    return found


@pytest.mark.parametrize("name", SETS)
async def test_a_real_apiserver_takes_every_object_under_strict_validation(admin: RestApi, name: str) -> None:
    for thing in things(name):
        if thing["kind"] != "Namespace":  # there are these already
            made = await admin.create(resource_of(thing), thing, dry_run=True)
            assert (made["kind"], made["metadata"]["name"]) == (thing["kind"], thing["metadata"]["name"])


async def test_strict_validation_refuses_a_field_that_there_is_not(admin: RestApi) -> None:
    api_deployment = next(thing for thing in things("small") if thing["kind"] == "Deployment")
    api_deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(Invalid, match="readinesProbe"):
        await admin.create(resource_of(api_deployment), api_deployment, dry_run=True)


@pytest.mark.parametrize("name", SETS)
async def test_every_pod_passes_restricted_pod_security_as_the_apiserver_enforces_it(admin: RestApi, name: str) -> None:
    for pod_name, pod in pods(rendered(name)):
        await admin.create(PODS, PODS.new(f"{pod_name}-probe", NAMESPACE, spec=pod), dry_run=True)
    with pytest.raises(Denied, match="violates PodSecurity"):
        await admin.create(PODS, PODS.new("probe", NAMESPACE, spec={**pod, "hostNetwork": True}), dry_run=True)


class Rows:
    def __init__(self) -> None:
        self.pools = [PoolSpec(name="cpu", kind="kubernetes", quota=Amounts(cpus=1.5, memory=8 << 30))]
        self.status: dict[str, Mapping[str, Any]] = {}

    async def list(self) -> Sequence[PoolSpec]:
        return self.pools

    async def observe(self, name: str, status: Mapping[str, Any], places: Sequence[Place] | None) -> None:
        self.status[name] = status


class NobodyWaits:
    async def queue(self) -> Sequence[Queued]:
        return []

    def served_kinds(self) -> Sequence[str]:
        return []


def executor_for(api: RestApi) -> KubernetesExecutor:
    async def place(spec: StageSpec, excluded: Sequence[str]) -> Placement:
        return placement(namespace=STAGES)

    async def issue(spec: StageSpec) -> str:
        return "token"

    async def credentials(spec: StageSpec) -> None:
        return None

    async def keep(attempt_id: str, rank: int, text: bytes) -> None:
        return None

    return KubernetesExecutor(
        api, namespace=STAGES, place=place, issue_token=issue, make_credentials=credentials, keep_log=keep
    )


async def until_known(work: Callable[[], Awaitable[object]]) -> None:
    """The apiserver takes a moment to know new roles."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                await work()
                return
            except ApiError:
                await asyncio.sleep(0.05)


@pytest.fixture
async def controller(server: ApiServer, admin: RestApi, tmp_path: Path) -> AsyncIterator[RestApi]:
    """As the controller's service account, by a token as its pod has one, after everything was installed."""
    for thing in things("production"):
        if thing["kind"] in ("Deployment", "Pod", "Job"):
            continue  # nobody runs pods here
        await admin.apply(resource_of(thing), thing)
    token = tmp_path / "token"
    token.write_text(server.account_token("abz-abruzzi-controller", namespace=NAMESPACE))
    async with RestApi(Access(kubeconfig=server.kubeconfig_with_token(token)), patience_seconds=2.0) as made:
        yield made


async def test_the_controllers_account_can_do_its_work(controller: RestApi, admin: RestApi) -> None:
    executor, made = executor_for(controller), spec(StageKind.CORPUS)
    try:
        await until_known(lambda: executor.create(made))
        assert (await executor.observe([made.attempt_id]))[made.attempt_id].phase is Phase.PENDING
        await executor.dump_stacks(made.attempt_id, 0)
        await executor.collect_logs()
        await executor.renew_credentials()
        await executor.stop(made.attempt_id, grace_seconds=1)
        await executor.remove(made.attempt_id)
        assert (await executor.observe([made.attempt_id]))[made.attempt_id].phase is Phase.GONE
    finally:
        await executor.close()
    policy = peer_policy(made.attempt_id, attempt_labels(made), STAGES)
    await controller.create(NETWORK_POLICIES, policy)
    await controller.delete(NETWORK_POLICIES, policy["metadata"]["name"], namespace=STAGES)
    await admin.create(
        PODS, PODS.new("of-an-attempt", STAGES, spec=pod_template(made, placement(), container="stage")["spec"])
    )
    await controller.patch(PODS, "of-an-attempt", {"metadata": {"annotations": {"a": "b"}}}, namespace=STAGES)
    assert await controller.read_log(STAGES, "of-an-attempt") == b""  # no node runs it
    await controller.delete(PODS, "of-an-attempt", namespace=STAGES, grace_seconds=0)
    for kind in (TRAIN_JOBS, PYTORCH_JOBS, RAY_JOBS):
        await controller.create(kind, kind.new("of-an-attempt", STAGES, spec={}))
        await controller.delete(kind, "of-an-attempt", namespace=STAGES)
    await controller.apply(TRAINING_RUNTIMES, training_runtime(STAGES))
    rows = Rows()
    pools = PoolController(controller, rows, NobodyWaits(), namespace=STAGES, now=lambda: datetime.now(UTC))
    await pools.look()
    assert rows.status["cpu"]["message"] == "Kueue has not looked at it yet."
    assert [queue["metadata"]["namespace"] for queue in await admin.list(LOCAL_QUEUES)] == [STAGES]
    rows.pools = []
    await pools.look()
    await admin.create(NODES, NODES.new("gpu-1"))
    await admin.create(
        LEASES, LEASES.new("gpu-1", "kube-node-lease", spec={"renewTime": "2026-11-26T00:00:00.000000Z"})
    )
    async with Reflector(controller, NODES, project=projections.node) as nodes:
        await nodes.synced()
    async with Reflector(controller, LEASES, project=projections.lease, namespace="kube-node-lease") as leases:
        await leases.synced()
        assert "gpu-1" in {name for _, name in leases.entries}
    await controller.get(LEASES, "gpu-1", namespace="kube-node-lease")
    patch = mark_patch(await controller.get(NODES, "gpu-1"), {TAINT_DRAIN})
    assert patch is not None
    marked = await controller.patch(NODES, "gpu-1", patch)
    assert marked["spec"]["unschedulable"]
    assert TAINT_DRAIN in {taint["key"] for taint in marked["spec"]["taints"]}
    await admin.delete(NODES, "gpu-1")
    for kind in (LOCAL_QUEUES, CLUSTER_QUEUES, RESOURCE_FLAVORS, TOPOLOGIES):
        assert await admin.list(kind) == []


async def test_the_controllers_account_can_do_no_more(controller: RestApi) -> None:
    await until_known(lambda: controller.list(JOBS, namespace=STAGES))
    refusals: list[Callable[[], Awaitable[object]]] = [
        lambda: controller.list(SECRETS, namespace=STAGES),
        lambda: controller.get(SECRETS, "abruzzi", namespace=NAMESPACE),
        lambda: controller.list(CONFIG_MAPS, namespace=STAGES),
        lambda: controller.list(JOBS, namespace=NAMESPACE),
        lambda: controller.create(NAMESPACES, NAMESPACES.new("another"), dry_run=True),
        lambda: controller.create(PODS, PODS.new("p", STAGES, spec={}), dry_run=True),
    ]
    for ask in refusals:
        with pytest.raises(Denied):
            await ask()


class Release:
    """By helm itself. Hooks are left out: nobody runs pods here."""

    def __init__(self, server: ApiServer, name: str, values_of: str) -> None:
        self._name = name
        self._where = ["--kubeconfig", str(server.kubeconfig), "--namespace", NAMESPACE]
        self._values = ["--values", str(values(values_of)), "--set", "serviceMonitor.enabled=false", "--no-hooks"]

    def install(self) -> str:
        return helm("install", self._name, str(CHART), *self._where, *self._values)

    def upgrade(self, *settings: str) -> None:
        more = [part for setting in settings for part in ("--set", setting)]
        helm("upgrade", self._name, str(CHART), *self._where, *self._values, *more)

    def rollback(self, revision: int) -> None:
        helm("rollback", self._name, str(revision), *self._where, "--no-hooks")

    def uninstall(self) -> None:
        helm("uninstall", self._name, *self._where, "--no-hooks")


async def test_helm_installs_upgrades_rolls_back_uninstalls_and_leaves_what_stages_made(
    server: ApiServer, admin: RestApi
) -> None:
    release, stages = Release(server, "abq", "production"), "abq-stages"

    async def replicas() -> int:
        deployment = Resource("apps", "v1", "deployments", "Deployment")
        return (await admin.get(deployment, "abq-abruzzi-controller", namespace=NAMESPACE))["spec"]["replicas"]

    assert "helm test -n abruzzi abq" in release.install()
    assert await replicas() == 2
    release.upgrade("controller.replicas=3")
    assert await replicas() == 3
    release.rollback(1)
    assert await replicas() == 2
    await admin.create(CONFIG_MAPS, CONFIG_MAPS.new("made-by-a-run", stages, data={}))
    release.uninstall()
    assert await admin.list(CONFIG_MAPS, namespace=stages) != []
    with pytest.raises(NotFound):
        await replicas()
    release.install()  # under the same name it takes the namespace back
    assert await replicas() == 2
    release.uninstall()


async def test_an_uninstall_leaves_the_volume_of_local_stages(server: ApiServer, admin: RestApi) -> None:
    release, claims = (
        Release(server, "abl", "local"),
        Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
    )
    release.install()
    release.uninstall()
    [claim] = await admin.list(claims, namespace=NAMESPACE)
    assert claim["metadata"]["name"] == "abl-abruzzi-state"
    release.install()
    release.uninstall()
