"""The executor before a real apiserver and etcd, without a node: what it writes, who is refused, what an outage and a restore leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from cluster.apiserver import ApiServer, needs_apiserver
from rendering import placement, spec

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import StageKind
from abruzzi.engine.view import Phase, Seen
from abruzzi_operators.executors.fence import policies
from abruzzi_operators.executors.ground import ROLES, manifests
from abruzzi_operators.executors.kubernetes import KubernetesExecutor
from abruzzi_operators.kubernetes.access import Access
from abruzzi_operators.kubernetes.errors import ApiError, Denied, Invalid
from abruzzi_operators.kubernetes.resources import (
    ADMISSION_POLICIES,
    ADMISSION_POLICY_BINDINGS,
    CONFIG_MAPS,
    JOBS,
    NAMESPACES,
    RAY_JOBS,
    SECRETS,
    SERVICES,
    Object,
    Resource,
)
from abruzzi_operators.kubernetes.rest_api import RestApi
from abruzzi_operators.renderers import Placement, WorkloadKind, render

pytestmark = needs_apiserver

NAMESPACE = "abruzzi-stages"
SECONDS = 240.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("apiserver")) as made:
        made.apply(f"/api/v1/namespaces/{NAMESPACE}", NAMESPACES.new(NAMESPACE))
        yield made


class Bench:
    """Executors against one apiserver, each with its own connection."""

    numbers = iter(range(1, 1000))

    def __init__(self, server: ApiServer, stack: AsyncExitStack) -> None:
        self._server, self._stack = server, stack

    async def api(self, kind: type[RestApi] = RestApi, *, user: str | None = None) -> RestApi:
        kubeconfig = self._server.kubeconfig if user is None else self._server.kubeconfig_as(user)
        return await self._stack.enter_async_context(kind(Access(kubeconfig=kubeconfig), patience_seconds=2.0))

    def executor(self, api: RestApi) -> KubernetesExecutor:
        async def place(spec: StageSpec, excluded: Sequence[str]) -> Placement:
            return placement(namespace=NAMESPACE)

        async def issue(spec: StageSpec) -> str:
            return "token"

        async def credentials(spec: StageSpec) -> None:
            return None

        async def keep(attempt_id: str, rank: int, text: bytes) -> None:
            return None

        made = KubernetesExecutor(
            api, namespace=NAMESPACE, place=place, issue_token=issue, make_credentials=credentials, keep_log=keep
        )
        self._stack.push_async_callback(made.close)
        return made

    def spec(self) -> StageSpec:
        number = next(self.numbers)
        return spec(StageKind.CORPUS).model_copy(update={"attempt_id": f"k7m2q9x4ab-corpus-{number}", "epoch": number})

    async def install_fence(self, api: RestApi) -> None:
        for thing in policies(NAMESPACE):
            await api.apply(ADMISSION_POLICIES if thing["kind"] == ADMISSION_POLICIES.kind else ADMISSION_POLICY_BINDINGS, thing)  # fmt: skip


@pytest.fixture
async def bench(server: ApiServer) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        yield Bench(server, stack)


async def until(look: Callable[[], Awaitable[Any]], condition: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(SECONDS):
        while not condition(found := await look()):
            await asyncio.sleep(0.05)
        return found


async def seen(executor: KubernetesExecutor, spec: StageSpec) -> Seen:
    return (await executor.observe([spec.attempt_id]))[spec.attempt_id]


async def test_an_attempt_costs_five_writes_from_its_creation_to_its_removal(bench: Bench) -> None:
    api = await bench.api()
    executor, spec = bench.executor(api), bench.spec()
    await executor.create(spec)
    assert (await seen(executor, spec)).phase is Phase.PENDING
    await executor.remove(spec.attempt_id)
    assert (await seen(executor, spec)).phase is Phase.GONE
    writes = {call: count for call, count in api.calls.items() if call[0] in ("create", "patch", "apply", "delete")}
    assert sum(writes.values()) <= 6, writes  # the sixth: the fence's ConfigMap, the first time


class Held(RestApi):
    """Stops before a workload's creation reaches the wire, as a controller does that is stopped there."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def create(self, resource: Resource, body: Object, *, dry_run: bool = False) -> Object:
        if resource is JOBS:
            self.reached.set()
            await self.go_on.wait()
        return await super().create(resource, body, dry_run=dry_run)


async def test_of_two_controllers_that_both_believe_they_lead_the_late_one_is_refused_by_the_apiserver(
    bench: Bench,
) -> None:
    held = await bench.api(Held)
    assert isinstance(held, Held)
    plain = await bench.api()
    await bench.install_fence(plain)
    old, new, spec = bench.executor(held), bench.executor(plain), bench.spec()
    creating = asyncio.create_task(old.create(spec))
    await held.reached.wait()
    await new.create(spec)
    await new.remove(spec.attempt_id)
    probe = render(spec, placement(namespace=NAMESPACE), WorkloadKind.JOB)

    async def refuses() -> bool:
        try:
            await plain.create(JOBS, probe, dry_run=True)
        except (Denied, Invalid):
            return True
        return False

    await until(refuses, bool)
    held.go_on.set()
    await creating
    assert (await seen(new, spec)).phase is Phase.GONE
    assert (await seen(old, spec)).phase is Phase.GONE


def grant(server: ApiServer, user: str, *, but: str = "") -> None:
    """The controller's rights, without those in the API group `but`, under names of their own."""
    for thing in manifests(NAMESPACE, {"apiGroup": ROLES, "kind": "User", "name": user}):
        group, plural = (
            thing["apiVersion"].rpartition("/")[0],
            f"{thing['kind'].lower()}s".replace("policys", "policies"),
        )
        if group == ROLES:
            thing["metadata"]["name"] = user
            if "roleRef" in thing:
                thing["roleRef"] = {**thing["roleRef"], "name": user}
            else:
                thing["rules"] = [rule for rule in thing["rules"] if not but or but not in rule["apiGroups"]]
        where = f"/namespaces/{thing['metadata']['namespace']}" if "namespace" in thing["metadata"] else ""
        server.apply(f"/apis/{group}/v1{where}/{plural}/{thing['metadata']['name']}", thing)


async def test_the_controllers_least_rights_are_enough_and_no_more(bench: Bench, server: ApiServer) -> None:
    grant(server, "controller")
    api = await bench.api(user="controller")
    executor, spec = bench.executor(api), bench.spec()
    await until_true(lambda: executor.create(spec))
    assert (await seen(executor, spec)).phase is Phase.PENDING
    await executor.dump_stacks(spec.attempt_id, 0)
    await executor.collect_logs()
    await executor.renew_credentials()
    await executor.stop(spec.attempt_id, grace_seconds=1)
    await executor.remove(spec.attempt_id)
    assert (await seen(executor, spec)).phase is Phase.GONE
    for kind in (SECRETS, SERVICES):
        with pytest.raises(Denied):
            await api.list(kind, namespace=NAMESPACE if kind.namespaced else None)


async def test_a_role_that_is_older_than_an_operator_keeps_nobody_who_needs_none_of_it(
    bench: Bench, server: ApiServer
) -> None:
    server.serve(RAY_JOBS)
    grant(server, "older", but=RAY_JOBS.group)
    executor, spec = bench.executor(await bench.api(user="older")), bench.spec()
    await until_true(lambda: executor.create(spec))
    assert (await seen(executor, spec)).phase is Phase.PENDING
    assert executor.served_kinds() == ["Job"]
    on_ray = bench.spec().model_copy(update={"config": {"resources": {"framework": "ray"}}})
    with pytest.raises(AbruzziError, match=r'"older" cannot list resource "rayjobs".*give the controller this right'):
        await executor.create(on_ray)
    await executor.remove(spec.attempt_id)
    assert (await seen(executor, spec)).phase is Phase.GONE


async def until_true(work: Callable[[], Awaitable[object]]) -> None:
    """The apiserver takes a moment to know new roles."""

    async def works() -> bool:
        try:
            await work()
        except ApiError:
            return False
        return True

    await until(works, bool)


async def test_rbac_that_denies_is_the_apiservers_own_sentence(bench: Bench) -> None:
    executor = bench.executor(await bench.api(user="nobody-special"))
    spec = bench.spec()
    with pytest.raises(ApiError, match=r"nobody-special.*cannot list") as denied:
        await executor.create(spec)
    assert denied.value.status == 500
    told = await seen(executor, spec)
    assert told.phase is Phase.UNKNOWN
    assert "cannot list" in str(told.reason)


async def test_an_apiserver_that_is_away_makes_everything_unknown_and_nothing_gone(
    bench: Bench, server: ApiServer
) -> None:
    executor, spec, never = bench.executor(await bench.api()), bench.spec(), bench.spec()
    await executor.create(spec)
    server.stop("apiserver", kill=True)
    try:
        told = await until(lambda: seen(executor, spec), lambda found: found.phase is Phase.UNKNOWN)
        assert told.reason
        assert (await seen(executor, never)).phase is Phase.UNKNOWN
        with pytest.raises(AbruzziError):
            await executor.create(never)
    finally:
        server.start_api()
    assert (
        await until(lambda: seen(executor, spec), lambda found: found.phase is not Phase.UNKNOWN)
    ).phase is Phase.PENDING
    assert (await seen(executor, never)).phase is Phase.GONE
    await executor.remove(spec.attempt_id)


async def test_what_a_restored_etcd_has_forgotten_or_brings_back_is_seen_as_it_is(
    bench: Bench, server: ApiServer
) -> None:
    api = await bench.api()
    executor, removed, lost = bench.executor(api), bench.spec(), bench.spec()
    await executor.create(removed)
    snapshot = server.snapshot()
    await until(executor_lists(executor), lambda ids: removed.attempt_id in ids)
    await executor.remove(removed.attempt_id)
    await executor.create(lost)
    server.restore(snapshot)
    assert (await until(lambda: seen(executor, lost), lambda found: found.phase is Phase.GONE)).phase is Phase.GONE
    # The collector of orphans finds what came back, and removes it with a fence that was forgotten, too.
    await until(executor_lists(executor), lambda ids: removed.attempt_id in ids)
    await executor.remove(removed.attempt_id)
    assert (await seen(executor, removed)).phase is Phase.GONE
    fence = await api.get(CONFIG_MAPS, "abruzzi-fence", namespace=NAMESPACE)
    assert int(fence["data"]["k7m2q9x4ab.corpus"].split(" ")[0]) > int(removed.attempt_id.rpartition("-")[2])


def executor_lists(executor: KubernetesExecutor) -> Callable[[], Awaitable[Sequence[str]]]:
    async def lists() -> Sequence[str]:
        try:
            return await executor.list_attempts()
        except ApiError:
            return ()

    return lists
