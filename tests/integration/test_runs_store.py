"""The run store over PostgreSQL: leases, fencing, views, specs, artifacts."""

from __future__ import annotations

import asyncio

import pytest

from abruzzi.artifacts import service as artifacts
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.states import AttemptState, Cause, RunState, StageState
from abruzzi.engine.actions import CreateAttempt, SetAttempt, SetRun, SetStage
from abruzzi.engine.ports import StaleLease, VersionConflict
from abruzzi.engine.view import Phase, Seen
from abruzzi.events import service as events
from abruzzi.kit.db import transaction
from abruzzi.runs import query, steer, submit
from abruzzi.runs.why import why


async def test_two_controllers_never_hold_one_run(world):
    runs = {await world.submit() for _ in range(12)}
    both = await asyncio.gather(*(world.lease(f"controller {i}", limit=3) for i in range(6)))
    held = [lease.run_id for leases in both for lease in leases]
    assert len(held) == len(set(held)), "a run was leased twice"
    assert all(len(leases) <= 3 for leases in both)
    rest = await world.lease("last", limit=100)
    assert {*held, *(lease.run_id for lease in rest)} == runs


async def test_a_leased_run_is_not_due_until_its_lease_expires(world):
    run_id = await world.submit()
    [first] = await world.lease("one", ttl_seconds=10)
    assert await world.lease("two") == []
    world.clock.turn(10.1)
    [second] = await world.lease("two")
    assert (second.run_id, second.token) == (run_id, first.token + 1)


async def test_a_stale_token_can_neither_write_nor_renew_nor_release(world):
    run_id = await world.submit()
    [stale] = await world.lease("one", ttl_seconds=10)
    world.clock.turn(11)
    [current] = await world.lease("two")
    with pytest.raises(StaleLease):
        await world.store.apply(stale, 1, [SetRun(RunState.RUNNING)])
    with pytest.raises(StaleLease):
        await world.store.renew(stale, ttl_seconds=10)
    await world.store.release(stale, wake_at=world.clock.now().timestamp())
    assert await world.lease("three") == [], "the stale controller gave the run away"
    assert (await world.store.load(run_id)).state is RunState.PENDING
    assert (await world.store.apply(current, 1, [SetRun(RunState.RUNNING)])).version == 2


async def test_renewing_keeps_the_lease(world):
    await world.submit()
    [lease] = await world.lease("one", ttl_seconds=10)
    world.clock.turn(9)
    await world.store.renew(lease, ttl_seconds=10)
    world.clock.turn(9)
    assert await world.lease("two") == []


async def test_a_decision_on_an_old_version_is_refused_whole(world):
    run_id = await world.submit()
    [lease] = await world.lease()
    await world.do(steer.cancel, run_id)
    with pytest.raises(VersionConflict):
        await world.store.apply(lease, 1, [SetStage("first", StageState.PENDING), SetRun(RunState.RUNNING)])
    run = await world.store.load(run_id)
    assert (run.state, run.stages[0].state) == (RunState.CANCELLING, StageState.WAITING)


async def test_a_failing_write_takes_the_others_of_its_decision_with_it(world):
    run_id = await world.submit()
    [lease] = await world.lease()
    with pytest.raises(AbruzziError):
        await world.store.apply(
            lease, 1, [SetStage("first", StageState.PENDING), SetAttempt("no-such-1", AttemptState.RUNNING)]
        )
    run = await world.store.load(run_id)
    assert (run.version, run.stages[0].state) == (1, StageState.WAITING)


async def test_a_ring_during_a_lease_is_not_lost_when_it_is_given_back(world):
    run_id = await world.submit()
    [lease] = await world.lease()
    await world.do(steer.cancel, run_id)
    await world.store.release(lease, wake_at=world.clock.now().timestamp() + 3600)
    assert [again.run_id for again in await world.lease("two")] == [run_id]


async def test_a_released_run_sleeps_until_its_date(world):
    await world.submit()
    [lease] = await world.lease()
    await world.store.release(lease, wake_at=world.clock.now().timestamp() + 60)
    world.clock.turn(59)
    assert await world.lease() == []
    world.clock.turn(2)
    [lease] = await world.lease()
    await world.store.release(lease, wake_at=None)
    world.clock.turn(1e6)
    assert await world.lease() == [], "only a ring wakes it"


async def test_everything_that_an_attempt_was_told_comes_back_in_the_view(world):
    run_id = await world.submit()
    [lease] = await world.lease()
    now = world.clock.now().timestamp()
    await world.store.apply(
        lease,
        1,
        [CreateAttempt("first", 1, 7, 2, ("node-3",)), SetStage("first", StageState.RUNNING, "why", now + 5)],
    )
    attempt_id = f"{run_id}-first-1"
    await world.store.apply(
        lease,
        2,
        [
            SetAttempt(
                attempt_id, AttemptState.STOPPING, reason="stalled", started_at=now, stop_requested_at=now + 1,
                stop_cause=Cause.HANG, stacks_requested_at=now + 2, node="node-4",
            ),
        ],
    )  # fmt: skip
    run = await world.store.load(run_id)
    stage = run.stages[0]
    [attempt] = stage.attempts
    assert (run.last_epoch, run.version, stage.not_before) == (7, 3, now + 5)
    assert (attempt.id, attempt.number, attempt.epoch, attempt.state) == (attempt_id, 1, 7, AttemptState.STOPPING)
    assert (attempt.started_at, attempt.stop_requested_at, attempt.stacks_requested_at) == (now, now + 1, now + 2)
    assert (attempt.stop_cause, attempt.reason, attempt.node) == (Cause.HANG, "stalled", "node-4")
    await world.store.apply(lease, 3, [SetAttempt(attempt_id, AttemptState.FAILED, cause=Cause.HANG, exit_code=143)])
    [attempt] = (await world.store.load(run_id)).stages[0].attempts
    assert (attempt.cause, attempt.exit_code, attempt.node) == (Cause.HANG, 143, "node-4"), (
        "None leaves a field as it is"
    )


async def test_a_chain_runs_to_its_end_with_its_inputs_bound(world):
    run_id = await world.submit()
    await world.steps(run_id)
    _, data = await world.commit(f"{run_id}-first-1", "files", "files")
    await world.end(f"{run_id}-first-1")
    spec = await world.store.spec(f"{run_id}-second-1")
    assert spec.inputs["data"].digest == data.digest()
    await world.commit(f"{run_id}-second-1", "checkpoint", "step-00000010", step=10, score=3.0)
    _, last = await world.commit(f"{run_id}-second-1", "checkpoint", "step-00000020", step=20, score=1.5)
    await world.end(f"{run_id}-second-1")
    assert (await world.store.spec(f"{run_id}-third-1")).inputs["model"].digest == last.digest()
    await world.end(f"{run_id}-third-1")
    run = await world.get(run_id)
    assert run.state is RunState.SUCCEEDED
    assert run.progress == 1.0
    async with transaction(world.sessions) as session:
        made = await artifacts.list_artifacts(session, run_id=run_id)
        above = await artifacts.lineage(session, made[-1].id)
    assert [(a.stage_id, a.name) for a in made] == [
        ("first", "files"), ("second", "step-00000010"), ("second", "step-00000020"),
    ]  # fmt: skip
    assert [a.id for a in above] == [made[0].id]
    assert all(a.verified_at for a in made)


async def test_a_gate_that_does_not_hold_skips_the_stage_and_says_by_which_number(world):
    run_id = await world.submit()
    await world.steps(run_id)
    await world.commit(f"{run_id}-first-1", "files", "files")
    await world.end(f"{run_id}-first-1")
    await world.commit(f"{run_id}-second-1", "checkpoint", "final", step=5, score=2.5)
    await world.end(f"{run_id}-second-1")
    run = await world.get(run_id)
    assert run.state is RunState.FAILED
    assert run.detail[2].state is StageState.SKIPPED
    assert "score is 2.5" in (run.detail[2].reason or "")


async def test_an_input_that_nobody_made_is_named(world):
    run_id = await world.submit()
    await world.steps(run_id)
    await world.end(f"{run_id}-first-1")
    with pytest.raises(AbruzziError, match=r"Input 'data' of stage 'second': stage 'first' has made no files"):
        await world.store.spec(f"{run_id}-second-1")


async def test_the_next_attempt_resumes_from_the_newest_checkpoint_that_verifies_and_stays_with_it(world):
    run_id = await world.submit()
    await world.steps(run_id)
    older, _ = await world.commit(f"{run_id}-first-1", "checkpoint", "step-00000010", "ten", step=10)
    _, damaged = await world.commit(f"{run_id}-first-1", "checkpoint", "step-00000020", "twenty", step=20)
    await world.end(f"{run_id}-first-1", exit_code=137)
    world.clock.turn(600)
    blob = damaged.files[0].digest.removeprefix("sha256:")
    world.objects.put(f"projects/default/runs/{run_id}/first/blobs/{blob}", b"TWENTY")
    await world.steps(run_id)
    spec = await world.store.spec(f"{run_id}-first-2")
    assert spec.resume is not None
    assert spec.resume.manifest_key == older
    # Even when a newer one becomes sound meanwhile, the same attempt stays the same attempt.
    world.objects.put(f"projects/default/runs/{run_id}/first/blobs/{blob}", b"twenty")
    assert (await world.store.spec(f"{run_id}-first-2")).digest() == spec.digest()
    run = await world.get(run_id)
    async with transaction(world.sessions) as session:
        known = {a.id: a.name for a in await artifacts.list_artifacts(session, run_id=run_id)}
    assert known[run.detail[0].attempts[1].resumed_from] == "step-00000010"
    assert (await world.store.load(run_id)).stages[0].attempts[1].resume_step == 10


async def test_a_checkpoint_found_damaged_is_called_verified_no_longer_and_told_once(world):
    run_id = await world.submit()
    await world.steps(run_id)
    await world.commit(f"{run_id}-first-1", "checkpoint", "step-00000010", "ten", step=10)
    key, damaged = await world.commit(f"{run_id}-first-1", "checkpoint", "step-00000020", "twenty", step=20)
    await world.end(f"{run_id}-first-1", exit_code=137)
    world.objects.delete(
        f"projects/default/runs/{run_id}/first/blobs/{damaged.files[0].digest.removeprefix('sha256:')}"
    )
    for number in (2, 3):
        world.clock.turn(600)
        await world.steps(run_id)
        await world.store.spec(f"{run_id}-first-{number}")
        async with transaction(world.sessions) as session:
            made = await artifacts.list_artifacts(session, run_id=run_id)
            told = [e.body for e in await events.read(session, run_id=run_id) if e.kind == "artifact.corrupt"]
        assert {a.name: a.verified_at is not None for a in made} == {"step-00000010": True, "step-00000020": False}
        assert [(body["stage"], body["key"]) for body in told] == [("first", key)]
        assert "is gone" in told[0]["reason"]
        await world.end(f"{run_id}-first-{number}", exit_code=137)


async def test_a_checkpoint_that_is_damaged_when_it_is_collected_is_no_artifact_and_told_once(world):
    run_id = await world.submit()
    await world.steps(run_id)
    key, damaged = await world.commit(f"{run_id}-first-1", "checkpoint", "step-00000010", "ten", step=10)
    reported, also = await world.commit(f"{run_id}-first-1", "checkpoint", "step-00000020", "twenty", step=20)
    async with transaction(world.sessions) as session:
        await artifacts.record(session, reported, also, verified_at=None)
    for manifest in (damaged, also):
        blob = manifest.files[0].digest.removeprefix("sha256:")
        world.objects.put(f"projects/default/runs/{run_id}/first/blobs/{blob}", b"changed")
    for lease in await world.lease():
        for _ in range(2):
            assert await world.store.collect_artifacts(lease, f"{run_id}-first-1") == 0
    async with transaction(world.sessions) as session:
        made = await artifacts.list_artifacts(session, run_id=run_id)
        told = [e.body["key"] for e in await events.read(session, run_id=run_id) if e.kind == "artifact.corrupt"]
    assert [(a.name, a.verified_at) for a in made] == [("step-00000020", None)]
    assert told == [key, reported]
    assert (await world.store.load(run_id)).stages[0].facts == {}


async def test_an_artifact_of_a_kind_that_this_process_does_not_know_is_told_of_and_keeps_the_run_going(world):
    """The stage's image is newer than the controller: nothing of it is dropped in silence."""
    run_id = await world.submit()
    await world.steps(run_id)
    key, manifest = await world.commit(f"{run_id}-first-1", "files", "files")
    await world.commit(f"{run_id}-first-1", "files", "others")
    world.objects.delete(key)
    world.objects.put(key, manifest.canonical_bytes().replace(b'"kind":"files"', b'"kind":"dreams"'))
    await world.end(f"{run_id}-first-1")
    async with transaction(world.sessions) as session:
        made = await artifacts.list_artifacts(session, run_id=run_id)
        told = [e.body for e in await events.read(session, run_id=run_id) if e.kind == "artifact.corrupt"]
    assert [a.name for a in made] == ["others"]
    assert [(body["stage"], body["key"]) for body in told] == [("first", key)]
    assert "kind: Input should be" in told[0]["reason"]
    assert "update the platform" in told[0]["reason"]
    assert (await world.get(run_id)).detail[0].state == "succeeded"


async def with_two_models(world):
    """(run, the older manifest, the newer one): `second` has succeeded with both, `third` is being started."""
    run_id = await world.submit()
    await world.steps(run_id)
    await world.commit(f"{run_id}-first-1", "files", "files")
    await world.end(f"{run_id}-first-1")
    _, older = await world.commit(f"{run_id}-second-1", "checkpoint", "step-00000010", "ten", step=10, score=1.0)
    _, newer = await world.commit(f"{run_id}-second-1", "checkpoint", "step-00000020", "twenty", step=20, score=1.0)
    await world.end(f"{run_id}-second-1")
    return run_id, older, newer


def blob_of(run_id, manifest):
    return f"projects/default/runs/{run_id}/second/blobs/{manifest.files[0].digest.removeprefix('sha256:')}"


async def test_the_successor_of_a_stage_whose_newest_checkpoint_is_damaged_gets_the_one_before(world):
    run_id, older, newer = await with_two_models(world)
    world.objects.put(blob_of(run_id, newer), b"TWENTY")
    spec = await world.store.spec(f"{run_id}-third-1")
    assert spec.inputs["model"].digest == older.digest()
    async with transaction(world.sessions) as session:
        made = await artifacts.list_artifacts(session, run_id=run_id, stage_id="second")
        told = [e.body for e in await events.read(session, run_id=run_id) if e.kind == "artifact.corrupt"]
    assert {a.name: (a.corrupt_at is None, a.verified_at is None) for a in made} == {
        "step-00000010": (True, False), "step-00000020": (False, True),
    }  # fmt: skip
    assert [(body["stage"], "step-00000020" in body["key"]) for body in told] == [("second", True)]
    with pytest.raises(AbruzziError, match="found damaged"):
        await world.do(submit.branch, run_id, made[1].id, objects=world.objects, actor="me")


@pytest.mark.parametrize("damage", ["a changed manifest", "a manifest that is gone", "no manifest"])
async def test_a_checkpoint_whose_manifest_is_not_what_was_committed_is_no_input_either(world, damage):
    run_id, older, newer = await with_two_models(world)
    key = f"projects/default/runs/{run_id}/second/e2/step-00000020/manifest.json"
    world.objects.delete(key)
    if damage == "a changed manifest":
        world.objects.put(key, newer.model_copy(update={"files": older.files}).canonical_bytes())
    elif damage == "no manifest":
        world.objects.put(key, b"{}")
    assert (await world.store.spec(f"{run_id}-third-1")).inputs["model"].digest == older.digest()


async def test_when_every_checkpoint_is_damaged_the_successor_says_which(world):
    run_id, older, newer = await with_two_models(world)
    for manifest in (older, newer):
        world.objects.delete(blob_of(run_id, manifest))
    with pytest.raises(
        AbruzziError, match=r"every checkpoint of stage 'second' is damaged \(step-00000010, step-00000020\)"
    ):
        await world.store.spec(f"{run_id}-third-1")


async def test_a_retry_from_above_starts_fresh_on_its_new_inputs_and_says_so(world):
    run_id = await world.submit()
    await world.steps(run_id)
    await world.commit(f"{run_id}-first-1", "files", "files", "old text")
    await world.end(f"{run_id}-first-1")
    await world.commit(f"{run_id}-second-1", "checkpoint", "step-00000010", "trained on old text", step=10)
    await world.end(f"{run_id}-second-1", exit_code=64)
    await world.do(steer.retry, run_id, "first")
    await world.steps(run_id)
    _, data = await world.commit(f"{run_id}-first-2", "files", "files", "new text")
    await world.end(f"{run_id}-first-2")
    spec = await world.store.spec(f"{run_id}-second-2")
    assert (spec.inputs["data"].digest, spec.resume) == (data.digest(), None)
    told = (await world.do(why, run_id)).sentence
    assert "It starts from the beginning: the checkpoint of earlier attempts came from other inputs." in told
    own, _ = await world.commit(f"{run_id}-second-2", "checkpoint", "step-00000005", "trained on new text", step=5)
    await world.end(f"{run_id}-second-2", exit_code=137)
    world.clock.turn(600)
    await world.steps(run_id)
    resume = (await world.store.spec(f"{run_id}-second-3")).resume
    assert resume is not None
    assert resume.manifest_key == own


async def test_divergence_goes_back_one_checkpoint_further_each_time(world):
    run_id = await world.submit()
    await world.steps(run_id)
    for step in (10, 20, 30):
        await world.commit(f"{run_id}-first-1", "checkpoint", f"step-{step:08}", str(step), step=step)
    await world.end(f"{run_id}-first-1", exit_code=76)
    world.clock.turn(600)
    await world.steps(run_id)
    resume = (await world.store.spec(f"{run_id}-first-2")).resume
    assert resume is not None
    assert "step-00000020" in resume.manifest_key


async def test_a_manifest_that_claims_another_attempt_is_refused(world):
    mine, theirs = await world.submit(), await world.submit()
    await world.steps(mine)
    await world.steps(theirs)
    key, manifest = await world.commit(f"{mine}-first-1", "files", "files")
    forged = manifest.model_copy(update={"run_id": theirs, "attempt_id": f"{theirs}-first-1"})
    world.objects.delete(key)
    world.objects.put(key, forged.canonical_bytes())
    await world.end(f"{mine}-first-1")
    async with transaction(world.sessions) as session:
        assert await artifacts.list_artifacts(session, run_id=theirs) == []
        assert await artifacts.list_artifacts(session, run_id=mine) == []


async def test_a_checkpoint_of_a_diverged_run_is_kept_with_its_nan(world):
    run_id = await world.submit()
    await world.steps(run_id)
    await world.commit(
        f"{run_id}-first-1",
        "checkpoint",
        "final",
        step=3,
        loss=float("nan"),
        worst=float("inf"),
        note="a\x00b",
        score=1.0,
    )
    await world.end(f"{run_id}-first-1")
    async with transaction(world.sessions) as session:
        [made] = await artifacts.list_artifacts(session, run_id=run_id)
    assert made.meta == {"loss": None, "worst": None, "note": "a\ufffdb", "score": 1.0}
    assert (await world.store.load(run_id)).stages[0].facts == {"score": 1.0}


async def test_what_retention_removed_stays_as_a_marked_record(world):
    run_id = await world.submit()
    await world.steps(run_id)
    key, manifest = await world.commit(f"{run_id}-first-1", "checkpoint", "step-00000010", step=10)
    async with transaction(world.sessions) as session:
        assert await artifacts.record(session, key, manifest, verified_at=None)
        assert await artifacts.record(session, key, manifest, verified_at=None) is None, "registering is idempotent"
    world.objects.delete(key)
    await world.commit(f"{run_id}-first-1", "checkpoint", "step-00000020", "newer", step=20)
    await world.end(f"{run_id}-first-1")
    async with transaction(world.sessions) as session:
        made = await artifacts.list_artifacts(session, run_id=run_id)
    assert {a.name: a.deleted_at is not None for a in made} == {"step-00000010": True, "step-00000020": False}


async def test_a_lost_node_is_excluded_from_the_next_attempt(world):
    run_id = await world.submit()
    await world.steps(run_id)
    world.seen[f"{run_id}-first-1"] = Seen(Phase.RUNNING, node="node-1")
    await world.steps(run_id)
    world.seen[f"{run_id}-first-1"] = Seen(Phase.GONE, node_lost=True, node="node-1")
    await world.steps(run_id)
    world.clock.turn(600)
    await world.steps(run_id)
    run = await world.get(run_id)
    assert [a.cause for a in run.detail[0].attempts] == [Cause.NODE, None]
    async with transaction(world.sessions) as session:
        assert (await query.attempt_row(session, f"{run_id}-first-2")).excluded_nodes == ["node-1"]


async def test_the_answer_to_a_submission_is_the_run_as_it_is_read_afterwards(world) -> None:  # type: ignore[no-untyped-def]
    recipe = (
        'version = 1\nname = "one"\n[[stage]]\nid = "a"\nkind = "container"\n[stage.container]\ncommand = ["true"]\n'
    )
    async with transaction(world.sessions) as session:
        told = await submit.submit(
            session, project_id="default", objects=world.objects, recipe_toml=recipe, actor="me", now=world.clock.now()
        )  # fmt: skip
    assert told == await world.get(told.id)
