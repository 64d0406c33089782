"""Whole runs through faults of a cluster: the real controller and the real executor, over a store and a cluster in memory.

Nothing is lost, nothing runs twice, and people are told; tests/cluster does the same with real processes.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from simulation.cluster_place import ClusterPlace, open_cluster_place
from simulation.memory_cluster import NAMESPACE, Manner
from simulation.memory_store import MemoryRunStore
from simulation.test_kubernetes_faults import admit_by_fence

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import AttemptState, Cause, RunState, StageState
from abruzzi.engine.view import AttemptView, Desired, Phase, RunView, Seen, StageView
from abruzzi_operators.controller.controller import Controller, ControllerConfig
from abruzzi_operators.executors.clearing import clear, look
from abruzzi_operators.executors.fence import NAME
from abruzzi_operators.executors.kubernetes import DISCOVER_SECONDS, KubernetesExecutor
from abruzzi_operators.kubernetes.errors import Denied, Unreachable
from abruzzi_operators.kubernetes.resources import CONFIG_MAPS, JOBS, RAY_JOBS, SECRETS, Object, Resource

RUN = "runaaaaaaa"
DEADLINE_SECONDS = 60.0


class Whole:
    def __init__(self, place: ClusterPlace) -> None:
        place.cluster.manners = defaultdict(Manner)
        self.place, self.cluster = place, place.cluster
        self.new_store()

    def new_store(self) -> None:
        """As it was before anything happened."""
        run = RunView(RUN, RunState.PENDING, Desired.RUN, 1, (StageView("work", StageState.WAITING),))
        self.store = MemoryRunStore([run], now=self.cluster.now)

    def controller(self, executor: KubernetesExecutor, *, owner: str = "one", lease_seconds: float = 1e6) -> Controller:
        config = ControllerConfig(owner=owner, look_seconds=0.01, lease_seconds=lease_seconds, most_delay_seconds=2.0)
        return Controller(self.store, executor, now=self.cluster.now, config=config, changed=executor.changed)

    @property
    def run(self) -> RunView:
        return self.store.runs[RUN]

    @property
    def attempts(self) -> tuple[AttemptView, ...]:
        return self.run.stages[0].attempts

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS) as limit:
            while not condition():
                await asyncio.sleep(0.01)
        assert not limit.expired(), self.run

    async def until_runs(self, number: int = 1) -> None:
        await self.until(lambda: len(self.attempts) == number and self.attempts[-1].state is AttemptState.RUNNING)

    async def until_ended(self) -> None:
        await self.until(lambda: self.run.state.is_terminal and all(a.workload_removed for a in self.attempts))

    def finish(self, number: int = 1) -> None:
        self.cluster.manners[f"{RUN}-work-{number}"].finish = True

    def starts(self) -> list[str]:
        return [attempt_id.removeprefix(f"{RUN}-work-") for attempt_id in self.cluster.started]


@pytest.fixture
async def whole() -> AsyncIterator[Whole]:
    async with open_cluster_place() as place:
        yield Whole(place)


@asynccontextmanager
async def running(controller: Controller) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(controller.run(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, DEADLINE_SECONDS)


def away() -> Unreachable:
    return Unreachable("list jobs.batch: connection refused.", reason="ConnectError")


async def test_a_stage_that_ends_while_the_apiserver_is_away_for_a_minute_has_succeeded_once(whole: Whole) -> None:
    async with running(whole.controller(whole.place.executor)):
        await whole.until_runs()
        whole.cluster.api.fail(away())
        began = whole.cluster.now()
        whole.finish()
        await whole.until(lambda: whole.attempts[0].reason)
        assert whole.attempts[0].reason == "It is out of sight: list jobs.batch: connection refused."
        await whole.until(lambda: whole.cluster.now() - began > 60.0)
        assert whole.attempts[0].state is AttemptState.RUNNING, "nobody has said that it ended"
        whole.cluster.api.fail(None)
        await whole.until_ended()
    assert whole.run.state is RunState.SUCCEEDED
    assert whole.starts() == ["1"]


async def test_what_was_said_about_an_outage_is_taken_back_when_it_is_over(whole: Whole) -> None:
    async with running(whole.controller(whole.place.executor)):
        await whole.until_runs()
        whole.cluster.api.fail(away())
        await whole.until(lambda: whole.attempts[0].reason)
        whole.cluster.api.fail(None)
        await whole.until(lambda: not whole.attempts[0].reason)
        assert whole.attempts[0].state is AttemptState.RUNNING
        whole.finish()
        await whole.until_ended()
    assert [told.state for told in whole.store.events[RUN] if told.kind == "attempt.state"].count("running") == 1


async def test_a_run_that_is_submitted_while_the_apiserver_is_away_says_so_and_starts_once_it_is_back(
    whole: Whole,
) -> None:
    await whole.place.executor.start()
    whole.cluster.api.fail(away())
    async with running(whole.controller(whole.place.executor)):
        await whole.until(lambda: whole.attempts and whole.attempts[0].reason)
        assert "connection refused" in str(whole.attempts[0].reason)
        whole.cluster.api.fail(None)
        await whole.until_runs()
        whole.finish()
        await whole.until_ended()
    assert whole.run.state is RunState.SUCCEEDED
    assert whole.starts() == ["1"]


async def test_a_workload_that_rbac_denies_waits_with_the_apiservers_sentence(whole: Whole) -> None:
    def deny(verb: str, resource: Resource, new: Object, old: Object | None) -> str | None:
        return 'User "controller" cannot create jobs' if resource is JOBS and verb == "create" else None

    whole.cluster.api.admission.append(deny)
    async with running(whole.controller(whole.place.executor)):
        await whole.until(lambda: whole.attempts and whole.attempts[0].reason)
        assert "cannot create jobs" in str(whole.attempts[0].reason)
        assert whole.attempts[0].state is AttemptState.CREATED
        whole.cluster.api.admission.clear()
        await whole.until_runs()
        whole.finish()
        await whole.until_ended()
    assert whole.run.state is RunState.SUCCEEDED
    assert whole.starts() == ["1"]


async def test_a_kind_that_the_role_may_not_list_stops_nobody_who_needs_none_of_it_and_is_used_once_it_may(
    whole: Whole,
) -> None:
    kinds = ("rayjobs", "trainjobs", "workloads")
    whole.cluster.api.forbidden = {(verb, kind) for verb in ("get", "list", "watch") for kind in kinds}
    executor = whole.place.executor
    async with running(whole.controller(executor)):
        await whole.until_runs()
        assert executor.served_kinds() == ["Job", "PyTorchJob"]
        on_ray = whole.place.spec(config={"resources": {"framework": "ray"}})
        with pytest.raises(AbruzziError, match=r"list rayjobs.ray.io: forbidden.*give the controller this right") as no:
            await executor.create(on_ray)
        assert no.value.code == "kind_not_served"
        whole.cluster.api.forbidden = set()
        whole.cluster._began -= DISCOVER_SECONDS / whole.cluster.speed
        await executor.create(on_ray)
        assert executor.served_kinds() == ["Job", "PyTorchJob", "RayJob"]
        whole.finish()
        await whole.until_ended()
    assert whole.run.state is RunState.SUCCEEDED
    assert whole.starts()[0] == "1"


async def test_a_kind_that_is_uninstalled_stops_those_alone_that_are_of_it_and_is_used_again_once_it_is_back(
    whole: Whole,
) -> None:
    executor, api = whole.place.executor, whole.cluster.api
    ray = {"resources": {"framework": "ray"}}
    plain, on_ray = whole.place.spec(), whole.place.spec(config=ray)

    async def until(spec: StageSpec, phase: Phase) -> Seen:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (seen := (await executor.observe([spec.attempt_id]))[spec.attempt_id]).phase is not phase:
                await asyncio.sleep(0.01)
        return seen

    await executor.create(plain)
    await until(plain, Phase.RUNNING)
    await executor.create(on_ray)
    await until(on_ray, Phase.PENDING)  # nobody plays KubeRay here
    kind = api.served.pop(RAY_JOBS.full_name)
    api.break_watches()
    await until(plain, Phase.UNKNOWN)  # while the watches are broken
    await until(plain, Phase.RUNNING)
    assert "rayjobs.ray.io: 404 page not found" in str((await until(on_ray, Phase.UNKNOWN)).reason)
    assert plain.attempt_id in await executor.list_attempts()
    whole.place.finish(plain)
    await until(plain, Phase.EXITED)
    whole.cluster._began -= DISCOVER_SECONDS / whole.cluster.speed
    with pytest.raises(AbruzziError, match=r"does not serve RayJob .*; install the KubeRay operator"):
        await executor.create(whole.place.spec(config=ray))
    api.served[RAY_JOBS.full_name] = kind
    await until(on_ray, Phase.PENDING)
    whole.cluster._began -= DISCOVER_SECONDS / whole.cluster.speed
    again = whole.place.spec(config=ray)
    await executor.create(again)
    await until(again, Phase.PENDING)


async def test_an_account_that_nobody_knows_at_the_start_makes_no_kind_unserved(whole: Whole) -> None:
    api = whole.cluster.api
    api.fail(Denied("list rayjobs.ray.io: Unauthorized (401).", http_status=401, reason="Unauthorized"))
    with pytest.raises(Denied):
        await whole.place.executor.start()
    api.fail(None)
    await whole.place.executor.start()
    assert "RayJob" in whole.place.executor.served_kinds()


async def test_what_an_older_etcd_has_forgotten_is_an_infrastructure_fault_and_runs_again(whole: Whole) -> None:
    async with running(whole.controller(whole.place.executor)):
        await whole.place.executor.start()
        snapshot = whole.cluster.api.snapshot()
        await whole.until_runs()
        whole.cluster.api.restore(snapshot)
        await whole.until_runs(2)
        whole.finish(2)
        await whole.until_ended()
    assert whole.run.state is RunState.SUCCEEDED
    assert [(a.state, a.cause) for a in whole.attempts] == [
        (AttemptState.FAILED, Cause.INFRASTRUCTURE),
        (AttemptState.SUCCEEDED, None),
    ]
    assert whole.starts() == ["1", "2"]


async def test_what_an_older_etcd_brings_back_of_an_ended_run_is_removed_and_changes_no_outcome(whole: Whole) -> None:
    controller = whole.controller(whole.place.executor)
    async with running(controller):
        await whole.until_runs()
        snapshot = whole.cluster.api.snapshot()
        whole.finish()
        await whole.until_ended()
        outcome = whole.run
        whole.cluster.api.restore(snapshot)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await whole.place.executor.list_attempts():
                await asyncio.sleep(0.01)
            while await whole.cluster.api.list(JOBS, namespace=NAMESPACE):
                await controller.collect_orphans()
    assert whole.run == outcome


async def test_after_a_database_was_restored_to_an_older_state_a_run_says_what_keeps_it_and_goes_on_once_that_is_cleared(
    whole: Whole,
) -> None:
    async with running(whole.controller(whole.place.executor)):
        await whole.until_runs()
        whole.finish()
        await whole.until_ended()
    whole.new_store()
    whole.place.renew()
    async with running(whole.controller(whole.place.executor)):
        await whole.until(lambda: whole.attempts and whole.attempts[0].reason)
        assert f"`abruzzi backup clear {NAMESPACE}`" in str(whole.attempts[0].reason)
        assert whole.attempts[0].state is AttemptState.CREATED
        assert whole.starts() == ["1"]
        assert list(await clear(whole.cluster.api, NAMESPACE)) == [CONFIG_MAPS]
        await whole.until_ended()
    assert whole.run.state is RunState.SUCCEEDED
    assert len(whole.attempts) == 1
    assert whole.starts() == ["1", "1"]


async def test_clearing_a_namespace_ends_what_runs_there_and_leaves_what_is_not_ours(whole: Whole) -> None:
    foreign = [CONFIG_MAPS.new("theirs", NAMESPACE, data={}), SECRETS.new("theirs", NAMESPACE, data={})]
    for kind, thing in zip((CONFIG_MAPS, SECRETS), foreign, strict=True):
        await whole.cluster.api.create(kind, thing)
    async with running(whole.controller(whole.place.executor)):
        await whole.until_runs()
    assert {kind.plural for kind in await look(whole.cluster.api, NAMESPACE)} == {"jobs", "pods", "secrets"}
    assert {kind.plural: len(things) for kind, things in (await clear(whole.cluster.api, NAMESPACE)).items()} == {
        "jobs": 1, "pods": 1, "secrets": 1,
    }  # fmt: skip
    assert await look(whole.cluster.api, NAMESPACE) == {}
    for kind in (CONFIG_MAPS, SECRETS):
        assert (await whole.cluster.api.get(kind, "theirs", namespace=NAMESPACE))["metadata"]["name"] == "theirs"


async def test_while_a_pod_lives_the_fence_is_not_cleared(whole: Whole) -> None:
    whole.cluster.manners[f"{RUN}-work-1"] = Manner(listens=False)
    async with running(whole.controller(whole.place.executor)):
        await whole.until_runs()
    await whole.cluster.api.create(CONFIG_MAPS, CONFIG_MAPS.new(NAME, NAMESPACE, data={f"{RUN}.before": "2 0"}))
    with pytest.raises(AbruzziError, match="The fence stays until they are gone"):
        await clear(whole.cluster.api, NAMESPACE, seconds=0.0)
    assert CONFIG_MAPS in await look(whole.cluster.api, NAMESPACE)


class Stopped:
    """An Api whose creations of workloads wait, as those of a process do that is stopped before its last system call."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)

    async def create(self, resource: Resource, body: Object, **options: Any) -> Object:
        if resource is JOBS:
            self.reached.set()
            await self.go_on.wait()
        return await self._api.create(resource, body, **options)


async def test_a_controller_that_was_stopped_for_longer_than_its_lease_changes_nothing_when_it_goes_on(
    whole: Whole,
) -> None:
    whole.place.cluster.api = stopped = Stopped(whole.cluster.api)  # type: ignore[assignment]
    whole.place.renew()
    late = whole.place.executor
    whole.place.cluster.api = stopped._api
    whole.place.renew()
    whole.cluster.api.admission.append(admit_by_fence(whole.place))
    first = whole.controller(late, lease_seconds=15.0)
    [lease] = await whole.store.lease("one", limit=1, ttl_seconds=15.0)
    handling = asyncio.create_task(first.handle(lease))
    await stopped.reached.wait()
    async with running(whole.controller(whole.place.executor, owner="two")):
        await whole.until_runs()
        whole.finish()
        await whole.until_ended()
        outcome, told = whole.run, list(whole.store.events[RUN])
        stopped.go_on.set()
        await handling
    assert whole.run == outcome
    assert whole.store.events[RUN] == told
    assert whole.starts() == ["1"]
    assert not await whole.cluster.api.list(JOBS, namespace=NAMESPACE)


async def test_a_job_that_somebody_deletes_under_a_run_is_tried_again_once_its_pod_is_gone(whole: Whole) -> None:
    async with running(whole.controller(whole.place.executor)):
        await whole.until_runs()
        await whole.cluster.api.delete(JOBS, f"abruzzi-{RUN}-work-1", namespace=NAMESPACE)
        await whole.until_runs(2)
        whole.finish(2)
        await whole.until_ended()
    assert whole.run.state is RunState.SUCCEEDED
    assert whole.attempts[0].cause in (Cause.INFRASTRUCTURE, Cause.PREEMPTION)
    assert whole.starts() == ["1", "2"]


async def test_an_image_that_does_not_exist_ends_the_run_with_the_kubelets_words(whole: Whole) -> None:
    whole.cluster.manners[f"{RUN}-work-1"] = Manner(image="InvalidImageName", image_message="couldn't parse image name")
    async with running(whole.controller(whole.place.executor)):
        await whole.until_ended()
    assert whole.run.state is RunState.FAILED
    assert whole.attempts[0].cause is Cause.USER_ERROR
    assert "couldn't parse image name" in str(whole.attempts[0].reason)
    assert whole.starts() == []


async def test_a_denial_of_the_watches_is_told_and_ends_nothing(whole: Whole) -> None:
    async with running(whole.controller(whole.place.executor)):
        await whole.until_runs()
        whole.cluster.api.fail(Denied('User "controller" cannot list pods', http_status=403, reason="Forbidden"))
        await whole.until(lambda: whole.attempts[0].reason)
        assert "cannot list pods" in str(whole.attempts[0].reason)
        whole.cluster.api.fail(None)
        whole.finish()
        await whole.until_ended()
    assert whole.run.state is RunState.SUCCEEDED
    assert whole.starts() == ["1"]
