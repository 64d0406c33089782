"""Faults of a cluster, each with a clear state and sentence, nothing lost and nothing run twice; on a cluster in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from simulation.cluster_place import ClusterPlace, open_cluster_place
from simulation.memory_cluster import NAMESPACE

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.stage import S3Store
from abruzzi.contracts.states import Cause, StageKind
from abruzzi.engine.view import Leave, Phase
from abruzzi.store.sessions import SESSION_SECONDS
from abruzzi_operators.executors.node_words import NodeWord
from abruzzi_operators.executors.pod_ends import STUCK_SECONDS
from abruzzi_operators.executors.secret import read
from abruzzi_operators.kubernetes.errors import ApiError, Denied, Unreachable
from abruzzi_operators.kubernetes.resources import CONFIG_MAPS, JOBS, PODS, PYTORCH_JOBS, SECRETS, TRAIN_JOBS, WORKLOADS

WRITES = ("create", "apply", "patch", "delete")


@pytest.fixture
async def place() -> AsyncIterator[ClusterPlace]:
    async with open_cluster_place() as made:
        yield made


def pair(place: ClusterPlace, **changes):  # type: ignore[no-untyped-def]
    """A pretrain stage of two ranks, one a node."""
    return place.spec(kind=StageKind.PRETRAIN, world_size=2, config={}, **changes)


async def test_one_pods_run_costs_five_writes_from_creation_to_removal(place: ClusterPlace) -> None:
    await place.executor.observe([])
    before = place.cluster.api.calls.copy()
    spec = place.spec()
    place.cluster.kubelet_is_silent = True
    place.cluster.operators_are_slow = True
    await place.executor.create(spec)
    ours = place.cluster.api.calls - before
    assert sum(count for (verb, _), count in ours.items() if verb in WRITES) == 2
    place.cluster.kubelet_is_silent = place.cluster.operators_are_slow = False
    await place.until_working(spec)
    place.finish(spec)
    await place.until_exited(spec)
    before = place.cluster.api.calls.copy()
    await place.executor.remove(spec.attempt_id)
    ours = place.cluster.api.calls - before
    assert sum(count for (verb, what), count in ours.items() if verb in WRITES and what != "pods") <= 4
    assert await place.executor.list_attempts() == []


async def test_ranks_on_two_nodes_end_as_one_attempt(place: ClusterPlace) -> None:
    spec = pair(place)
    await place.executor.create(spec)
    await place.until_working(spec)
    assert place.starts(spec) == 2
    place.finish(spec)
    assert (await place.until_exited(spec)).exit_code == 0


async def test_when_one_pod_fails_the_others_are_stopped_and_its_code_is_the_attempts(place: ClusterPlace) -> None:
    spec = pair(place)
    await place.executor.create(spec)
    await place.until_working(spec)
    place.cluster.kills.append(f"abruzzi-{spec.attempt_id}-worker-0")
    seen = await place.until_exited(spec)
    assert (seen.exit_code, seen.reason) == (137, "Signal 9 ended rank 1.")
    assert place.starts(spec) == 2


async def test_a_pod_that_somebody_deletes_ends_the_attempt_after_saving_and_is_not_made_anew(
    place: ClusterPlace,
) -> None:
    spec = pair(place)
    await place.executor.create(spec)
    await place.until_working(spec)
    await place.cluster.api.delete(PODS, f"abruzzi-{spec.attempt_id}-worker-0", namespace=NAMESPACE)
    seen = await place.until_exited(spec)
    assert seen.exit_code == 143
    assert place.starts(spec) == 2
    await place.executor.remove(spec.attempt_id)
    assert not await place.cluster.api.list(PYTORCH_JOBS, namespace=NAMESPACE)


async def test_a_pod_that_vanishes_without_a_word_takes_the_workload_with_it_and_the_outcome_is_unknown(
    place: ClusterPlace,
) -> None:
    """A forced deletion: nobody knows how it ended, and the operator would make it anew."""
    spec = pair(place)
    await place.executor.create(spec)
    await place.until_working(spec)
    place.cluster.operators_are_slow = True
    name = f"abruzzi-{spec.attempt_id}-worker-0"
    await place.cluster.api.delete(PODS, name, namespace=NAMESPACE, grace_seconds=0)
    await place.until(spec, lambda seen: seen.phase is Phase.EXITED)
    place.cluster.operators_are_slow = False
    seen = await place.until_exited(spec)
    assert seen.exit_code == 143, "of the master, which was stopped; a code that says success would be a lie"
    assert not await place.cluster.api.list(PYTORCH_JOBS, namespace=NAMESPACE)


async def test_a_workload_that_somebody_deletes_is_known_to_be_gone_or_to_have_saved(place: ClusterPlace) -> None:
    spec = place.spec()
    await place.executor.create(spec)
    await place.until_working(spec)
    await place.cluster.api.delete(JOBS, f"abruzzi-{spec.attempt_id}", namespace=NAMESPACE)
    seen = await place.until(spec, lambda seen: seen.phase in (Phase.EXITED, Phase.GONE))
    assert (seen.phase, seen.exit_code) == (Phase.EXITED, 143)
    while await place.cluster.pods(spec.attempt_id):
        await asyncio.sleep(0.01)
    place.renew()
    assert (await place.look(spec)).phase is Phase.GONE
    assert await place.executor.list_attempts() == []


@pytest.mark.parametrize(
    ("reason", "message", "phase", "code"),
    [
        ("ErrImagePull", 'failed to resolve reference "registry/none:1": not found', Phase.PENDING, None),
        ("InvalidImageName", "couldn't parse image name", Phase.EXITED, 64),
    ],
)
async def test_an_image_that_does_not_exist_is_named(
    place: ClusterPlace, reason: str, message: str, phase: Phase, code: int | None
) -> None:
    spec = place.spec()
    manner = place.manner(spec)
    manner.image, manner.image_message = reason, message
    await place.executor.create(spec)
    seen = await place.until(spec, lambda seen: bool(seen.reason))
    assert (seen.phase, seen.exit_code) == (phase, code)
    assert reason in str(seen.reason)
    assert message in str(seen.reason)


async def test_an_image_that_stays_absent_becomes_the_recipes_mistake(place: ClusterPlace) -> None:
    spec = place.spec()
    place.manner(spec).image, place.manner(spec).image_message = "ImagePullBackOff", "manifest unknown"
    place.cluster.speed = 2000.0
    await place.executor.create(spec)
    assert (await place.until_exited(spec)).exit_code == 64
    await place.executor.remove(spec.attempt_id)
    assert (await place.look(spec)).phase is Phase.GONE
    assert place.starts(spec) == 0


async def test_what_waits_for_quota_says_kueues_words(place: ClusterPlace) -> None:
    place.placement = replace(place.placement, queue="h800")
    spec = place.spec()
    await place.executor.create(spec)
    job = await place.cluster.api.get(JOBS, f"abruzzi-{spec.attempt_id}", namespace=NAMESPACE)
    assert job["spec"]["suspend"]
    assert (await place.look(spec)).reason == "It waits in queue 'h800'."
    queued = WORKLOADS.new("job-abruzzi", NAMESPACE, spec={})
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "x", "uid": job["metadata"]["uid"]}
    queued["metadata"]["ownerReferences"] = [owner]
    await place.cluster.api.create(WORKLOADS, queued)
    message = "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor cpu, 1 more needed"
    condition = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": message}
    place.cluster.api.put_status(WORKLOADS, "job-abruzzi", {"conditions": [condition]}, namespace=NAMESPACE)
    seen = await place.until(spec, lambda seen: "quota" in str(seen.reason))
    assert (seen.phase, seen.reason) == (Phase.PENDING, f"It waits in queue 'h800': {message}.")
    assert place.starts(spec) == 0


async def test_while_the_apiserver_is_away_nothing_is_known_and_afterwards_nothing_was_lost(
    place: ClusterPlace,
) -> None:
    spec, never = place.spec(), place.spec()
    await place.executor.create(spec)
    await place.until_working(spec)
    place.cluster.api.fail(Unreachable("get: connection refused.", reason="ConnectError"))
    seen = await place.until(spec, lambda seen: "connection refused" in str(seen.reason))
    assert seen.phase is Phase.UNKNOWN
    assert (await place.look(never)).phase is Phase.UNKNOWN, "not GONE: nobody has said so"
    with pytest.raises(ApiError):
        await place.executor.create(never)
    with pytest.raises(ApiError):
        await place.executor.list_attempts()
    place.cluster.api.fail(None)
    place.finish(spec)
    assert (await place.until_exited(spec)).exit_code == 0
    assert place.starts(spec) == 1


async def test_an_executor_that_starts_while_the_apiserver_is_away_knows_nothing_and_recovers(
    place: ClusterPlace,
) -> None:
    spec = place.spec()
    await place.executor.create(spec)
    await place.until_working(spec)
    place.cluster.api.fail(Unreachable("get: connection refused.", reason="ConnectError"))
    place.renew()
    assert (await place.look(spec)).phase is Phase.UNKNOWN
    place.cluster.api.fail(None)
    assert (await place.until_working(spec)).phase is Phase.RUNNING


async def test_a_create_that_rbac_denies_keeps_the_apiservers_sentence_and_leaves_nothing(place: ClusterPlace) -> None:
    def deny(verb: str, resource, new, old) -> str | None:  # type: ignore[no-untyped-def]
        return 'User "system:serviceaccount:abruzzi:controller" cannot create jobs' if resource is JOBS else None

    place.cluster.api.admission.append(deny)
    spec = place.spec()
    with pytest.raises(Denied, match="cannot create jobs") as denied:
        await place.executor.create(spec)
    assert denied.value.status == 500, "the engine tries again: it is no mistake of the recipe"
    place.cluster.api.admission.clear()
    await place.executor.create(spec)
    await place.until_working(spec)
    assert place.starts(spec) == 1


async def test_a_stage_for_several_nodes_is_refused_where_no_operator_could_run_it_and_taken_once_one_is_there(
    place: ClusterPlace,
) -> None:
    api = place.cluster.api
    for kind in (PYTORCH_JOBS, TRAIN_JOBS):
        del api.served[kind.full_name]
    spec = pair(place)
    with pytest.raises(AbruzziError, match=r"does not serve PyTorchJob") as refused:
        await place.executor.create(spec)
    assert refused.value.status == 422
    assert not await api.list(SECRETS, namespace=NAMESPACE), "refused before anything was created"
    api.served[PYTORCH_JOBS.full_name] = PYTORCH_JOBS
    place.renew()
    await place.executor.create(spec)
    await place.until_working(spec)


async def test_pods_on_a_lost_node_end_the_attempt_and_are_removed_without_their_kubelet(place: ClusterPlace) -> None:
    spec = pair(place)
    await place.executor.create(spec)
    await place.until_working(spec)
    place.cluster.kubelet_is_silent = True
    place.words["node-1"] = NodeWord(lost="Node node-1 is lost.")
    seen = await place.until_exited(spec)
    assert (seen.node_lost, seen.node, seen.reason) == (True, "node-1", "Node node-1 is lost.")
    await place.executor.remove(spec.attempt_id)
    assert (await place.look(spec)).phase is Phase.GONE
    assert await place.cluster.pods(spec.attempt_id) == []


async def test_a_pod_whose_kubelet_never_ends_it_is_given_up_with_its_node(place: ClusterPlace) -> None:
    """Nobody has called the node lost; the pod is simply still there long after its grace."""
    spec = pair(place)
    await place.executor.create(spec)
    await place.until_working(spec)
    place.cluster.kubelet_is_silent = True
    await place.executor.stop(spec.attempt_id, grace_seconds=60)
    assert (await place.look(spec)).phase is Phase.RUNNING
    place.cluster._began -= 100.0 / place.cluster.speed
    seen = await place.until_exited(spec)
    assert (seen.node_lost, seen.node) == (True, "node-1")
    await place.executor.remove(spec.attempt_id)
    assert (await place.look(spec)).phase is Phase.GONE
    assert await place.cluster.pods(spec.attempt_id) == []


async def test_an_overdue_pod_on_a_node_that_answers_is_no_lost_node_for_a_long_time(place: ClusterPlace) -> None:
    """A kubelet with much to do is late; its pods still run, and nobody may take their place."""
    spec = place.spec()
    await place.executor.create(spec)
    await place.until_working(spec)
    place.cluster.kubelet_is_silent = True
    place.words["node-1"] = NodeWord(is_well=True)
    await place.executor.stop(spec.attempt_id, grace_seconds=60)
    place.cluster._began -= 400.0 / place.cluster.speed
    assert (await place.look(spec)).phase is Phase.RUNNING
    place.words.clear()
    assert (await place.look(spec)).node_lost, "nobody says that the node is well any more"
    place.words["node-1"] = NodeWord(is_well=True)
    assert (await place.look(spec)).phase is Phase.RUNNING
    place.cluster._began -= STUCK_SECONDS / place.cluster.speed
    seen = await place.until_exited(spec)
    assert seen.node_lost
    assert "has not ended pod" in str(seen.reason)


async def test_what_sits_on_a_node_that_somebody_wants_is_asked_to_leave_it(place: ClusterPlace) -> None:
    spec = pair(place)
    await place.executor.create(spec)
    assert (await place.until_working(spec)).leave is None
    leave = Leave(Cause.PREEMPTION, "Node node-1 is being drained: a fan.", "node-1")
    place.words["node-1"] = NodeWord(leave=leave, is_well=True)
    seen = await place.look(spec)
    assert (seen.phase, seen.leave) == (Phase.RUNNING, leave)


async def test_ranks_that_have_done_their_part_are_told_while_others_run(place: ClusterPlace) -> None:
    spec = pair(place)
    await place.executor.create(spec)
    assert (await place.until_working(spec)).ended_ranks == frozenset()
    worker = next(p for p in await place.cluster.pods(spec.attempt_id) if "worker" in p["metadata"]["name"])
    place.cluster._end(worker, 0, by_launcher=False)
    seen = await place.until(spec, lambda seen: bool(seen.ended_ranks))
    assert (seen.phase, seen.ended_ranks) == (Phase.RUNNING, frozenset({1}))


async def test_a_create_that_was_held_up_for_longer_than_the_removal_is_refused_by_the_fence(
    place: ClusterPlace,
) -> None:
    """The old controller had looked at everything and stood before its last call when it was stopped."""
    old = place.executor
    spec = place.spec()
    await old.start()
    placement = place.placement
    place.renew()
    await place.executor.remove(spec.attempt_id)
    place.cluster.api.admission.append(admit_by_fence(place))
    made = await old._create_workload(spec, placement, "Job")  # type: ignore[arg-type]
    assert made is None
    assert not await place.cluster.api.list(JOBS, namespace=NAMESPACE)


async def test_an_apiserver_that_has_not_loaded_its_policies_yet_has_refused_nothing_for_good(
    place: ClusterPlace,
) -> None:
    """After its start it refuses whatever they are about, and names the policy, too."""

    def admit(verb: str, resource, new, old) -> str | None:  # type: ignore[no-untyped-def]
        unready = "ValidatingAdmissionPolicy 'abruzzi-fence-stages' denied request: paramKind kind `/v1, Kind=ConfigMap` not yet synced"
        return unready if verb == "create" and resource is JOBS else None

    spec = place.spec()
    place.cluster.api.admission.append(admit)
    with pytest.raises(Denied, match="not yet synced"):
        await place.executor.create(spec)
    place.cluster.api.admission.clear()
    await place.executor.create(spec)
    assert len(await place.cluster.api.list(JOBS, namespace=NAMESPACE)) == 1


def admit_by_fence(place: ClusterPlace):  # type: ignore[no-untyped-def]
    """The ValidatingAdmissionPolicy in words of the memory's apiserver; tests/cluster holds the real one to the same."""

    def admit(verb: str, resource, new, old) -> str | None:  # type: ignore[no-untyped-def]
        attempt = (new["metadata"].get("labels") or {}).get("abruzzi.io/attempt")
        if verb == "create" and resource in (JOBS, PODS) and attempt and place.executor._fence.is_removed(attempt):
            return f"abruzzi-fence: attempt {attempt} was removed and never comes back"
        return None

    return admit


async def test_removals_at_the_same_time_share_their_writes_and_old_entries_go(place: ClusterPlace) -> None:
    await place.executor.start()
    before = place.cluster.api.calls.copy()
    ids = [f"k{n:09d}-work-1" for n in range(200)]
    await asyncio.gather(*(place.executor._fence.remove(attempt_id) for attempt_id in ids))
    ours = place.cluster.api.calls - before
    assert ours["patch", "configmaps"] + ours["create", "configmaps"] <= 4
    assert all(place.executor._fence.is_removed(attempt_id) for attempt_id in ids)
    assert not place.executor._fence.is_removed("k000000001-work-2")
    place.cluster._began -= 3 * 3600 / place.cluster.speed
    await place.executor._fence.remove("z000000000-work-1")
    fence = await place.cluster.api.get(CONFIG_MAPS, "abruzzi-fence", namespace=NAMESPACE)
    assert list(fence["data"]) == ["z000000000.work"]


async def test_the_fence_keeps_its_size_however_many_are_removed_in_an_hour(
    place: ClusterPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("abruzzi_operators.executors.fence.MOST_ENTRIES", 10)
    await place.executor.start()
    fence = place.executor._fence
    for number in range(40):
        place.cluster._began -= 60 / place.cluster.speed
        await fence.remove(f"k{number:09d}-work-1")
        while f"k{number:09d}.work" not in fence._data():
            await asyncio.sleep(0.01)
    kept = sorted(fence._data())
    assert len(kept) <= 11
    assert kept[-1] == "k000000039.work"
    assert fence.is_removed("k000000039-work-1")


FOREIGN = {"container": {"command": ["echo"], "image": "docker.io/library/busybox:1"}}


async def test_the_log_of_an_image_without_our_launcher_is_kept_as_it_grows_and_once_more_at_the_end(
    place: ClusterPlace,
) -> None:
    spec, ours = place.spec(config=FOREIGN), place.spec()
    for each in (spec, ours):
        await place.executor.create(each)
        await place.until_working(each)
    [pod] = await place.cluster.pods(spec.attempt_id)
    printed = place.cluster.api.logs
    key = (NAMESPACE, pod["metadata"]["name"])
    printed[key] = b"first\n"
    async with asyncio.timeout(20):
        while not place.logs:
            await place.executor.collect_logs()
            await asyncio.sleep(0.01)
    assert place.logs == {(spec.attempt_id, 0): b"first\n"}, "our own launcher ships its logs itself"
    printed[key] += b"last words\n"
    place.finish(spec)
    await place.until_exited(spec)
    await place.executor.remove(spec.attempt_id)
    assert place.logs[spec.attempt_id, 0] == b"first\nlast words\n"


async def test_credentials_are_renewed_in_the_last_third_of_their_life_also_by_another_controller(
    place: ClusterPlace,
) -> None:
    place.credentials_live_seconds = SESSION_SECONDS
    spec = place.spec(store=S3Store(endpoint="minio:9000", bucket="abruzzi"))
    await place.executor.create(spec)
    await place.until_working(spec)
    await place.executor.renew_credentials()
    assert place.issued == [spec.attempt_id], "they have just been made"
    place.renew()
    place.cluster._began -= 0.7 * SESSION_SECONDS / place.cluster.speed
    await place.executor.renew_credentials()
    await place.executor.renew_credentials()
    assert place.issued == [spec.attempt_id] * 2
    kept = await place.cluster.api.get(SECRETS, f"abruzzi-{spec.attempt_id}", namespace=NAMESPACE)
    assert "key-2" in str(read(kept, "credentials.json"))
    assert read(kept, "token") == f"token-of-{spec.attempt_id}", "everything else stays"


async def news(place: ClusterPlace) -> set[str]:
    async with asyncio.timeout(20):
        return await place.executor.changed()


async def test_a_listener_is_rung_once_for_each_thing_that_the_engine_would_see_otherwise(place: ClusterPlace) -> None:
    spec = place.spec()
    rung: list[str] = []

    async def listen() -> None:
        while True:
            rung.extend(sorted(await place.executor.changed()))

    listening = asyncio.create_task(listen())
    try:
        await place.executor.create(spec)
        assert (await place.look(spec)).phase is Phase.PENDING
        for phase in (Phase.RUNNING, Phase.EXITED):
            before = len(rung)
            async with asyncio.timeout(20):
                while len(rung) == before:
                    await asyncio.sleep(0.01)
            seen = await place.look(spec)
            assert (seen.phase, seen.rings) == (phase, True)
            place.finish(spec)
        await place.executor.remove(spec.attempt_id)
        assert (await place.look(spec)).phase is Phase.GONE
    finally:
        listening.cancel()
    assert rung == [spec.attempt_id] * 2, "not for every event of the workload and its pod"


async def test_what_is_said_about_a_queue_rings_once_and_not_for_every_other_number_in_it(place: ClusterPlace) -> None:
    place.placement = replace(place.placement, queue="h800")
    place.cluster.speed = 1.0
    spec = place.spec()
    await place.executor.create(spec)
    await place.look(spec)
    job = await place.cluster.api.get(JOBS, f"abruzzi-{spec.attempt_id}", namespace=NAMESPACE)
    queued = WORKLOADS.new("job-abruzzi", NAMESPACE, spec={})
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
    queued["metadata"]["ownerReferences"] = [owner]
    await place.cluster.api.create(WORKLOADS, queued)
    place.executor._news._told.clear()
    heard: list[set[str]] = []

    async def listen() -> None:
        while True:
            heard.append(await place.executor.changed())

    listening = asyncio.create_task(listen())
    try:
        for number in range(5):
            condition = {"type": "QuotaReserved", "status": "False", "message": f"{number} more needed"}
            place.cluster.api.put_status(WORKLOADS, "job-abruzzi", {"conditions": [condition]}, namespace=NAMESPACE)
            await place.until(spec, lambda seen, said=f"{number} more": said in str(seen.reason))
    finally:
        listening.cancel()
    assert len(heard) <= 1


async def test_a_node_that_is_wanted_or_lost_rings_for_what_runs_there(place: ClusterPlace) -> None:
    spec = place.spec()
    await place.executor.create(spec)
    await place.until_working(spec)
    place.words["node-1"] = NodeWord(leave=Leave(Cause.NODE, "Node node-1 has a fault.", "node-1"))
    place.executor.look_at([spec.attempt_id])
    assert await news(place) == {spec.attempt_id}
    assert (await place.look(spec)).leave is not None
    place.words["node-1"] = NodeWord(lost="Node node-1 is lost.")
    place.executor.look_at([spec.attempt_id])
    assert await news(place) == {spec.attempt_id}
    assert (await place.look(spec)).node_lost


async def test_a_removal_goes_on_where_the_node_of_a_foreign_image_never_gives_its_log(
    place: ClusterPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("abruzzi_operators.executors.pod_logs.LAST_WORD_SECONDS", 0.05)
    spec, healthy = place.spec(config=FOREIGN), place.spec(config=FOREIGN)
    for each in (spec, healthy):
        await place.executor.create(each)
        await place.until_working(each)
    read_log = place.cluster.api.read_log

    async def read(namespace: str, pod: str, **options) -> bytes:  # type: ignore[no-untyped-def]
        if spec.attempt_id in pod:
            await asyncio.Event().wait()
        return await read_log(namespace, pod, **options)

    monkeypatch.setattr(place.cluster.api, "read_log", read)
    for each in (spec, healthy):
        place.finish(each)
        await place.until_exited(each)
        await place.executor.remove(each.attempt_id)
    assert await place.executor.list_attempts() == []
