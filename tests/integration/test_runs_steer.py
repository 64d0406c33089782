"""What people ask of runs: submit, cancel, retry, branch; and the platform's own stop and start."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from abruzzi.artifacts import service as artifacts
from abruzzi.contracts.errors import AbruzziError, Conflict, NotFound
from abruzzi.contracts.states import AttemptState, RunState, StageState
from abruzzi.engine.view import Desired
from abruzzi.events import service as events
from abruzzi.events.models import OutboxRow
from abruzzi.kit.db import transaction
from abruzzi.recipes import service as recipes
from abruzzi.runs import query, steer, submit
from abruzzi.runs.gates import GateOut, gates_of
from abruzzi.runs.listing import list_runs
from abruzzi.store import is_pinned


async def finished_first(world) -> str:
    """A run whose first stage has succeeded and whose second is running."""
    run_id = await world.submit()
    await world.steps(run_id)
    await world.commit(f"{run_id}-first-1", "files", "files")
    await world.end(f"{run_id}-first-1")
    return run_id


async def failed_second(world) -> str:
    run_id = await finished_first(world)
    await world.commit(f"{run_id}-second-1", "checkpoint", "step-00000010", "ten", step=10, score=1.0)
    await world.commit(f"{run_id}-second-1", "checkpoint", "step-00000020", "twenty", step=20, score=1.0)
    await world.end(f"{run_id}-second-1", exit_code=64)
    return run_id


async def checkpoint_id(world, run_id: str, name: str) -> str:
    async with transaction(world.sessions) as session:
        return next(a.id for a in await artifacts.list_artifacts(session, run_id=run_id) if a.name == name)


async def test_a_submission_is_rows_an_event_and_a_message_in_one_transaction(world):
    run_id = await world.submit(overrides={"stage.first.seed": "7"})
    run = await world.get(run_id)
    assert (run.state, run.version, run.name) == (RunState.PENDING, 1, "chain")
    assert [(s.id, s.state, s.needs) for s in run.detail] == [
        ("first", StageState.WAITING, []), ("second", StageState.WAITING, ["first"]), ("third", StageState.WAITING, ["second"]),
    ]  # fmt: skip
    assert run.detail[0].config["seed"] == 7
    async with transaction(world.sessions) as session:
        assert [e.kind for e in await events.read(session, run_id=run_id)] == ["run.state"]
        assert (await session.execute(select(OutboxRow.kind))).scalars().all() == ["run.submitted"]


async def test_a_bad_recipe_leaves_nothing_behind(world):
    with pytest.raises(AbruzziError):
        await world.submit('version = 1\nname = "x"\n')
    async with transaction(world.sessions) as session:
        assert await list_runs(session, now=world.clock.now()) == []
        assert await events.read(session) == []


async def test_recipes_are_versioned_by_their_text(world):
    await world.submit()
    await world.submit()
    await world.submit((await world.get(await world.submit())).recipe_toml + "\n# changed\n")
    async with transaction(world.sessions) as session:
        [newest] = await recipes.list_latest(session)
    assert (newest.name, newest.version) == ("chain", 2)


async def test_cancel_stops_what_runs_and_ends_cancelled(world):
    run_id = await finished_first(world)
    await world.do(steer.cancel, run_id)
    await world.do(steer.cancel, run_id)
    assert (await world.get(run_id)).state is RunState.CANCELLING
    await world.steps(run_id)
    await world.end(f"{run_id}-second-1", exit_code=143)
    run = await world.get(run_id)
    assert run.state is RunState.CANCELLED
    assert [s.state for s in run.detail] == [StageState.SUCCEEDED, StageState.CANCELLED, StageState.CANCELLED]
    assert run.detail[1].attempts[0].state is AttemptState.CANCELLED
    await world.do(steer.cancel, run_id)


async def test_an_ended_run_cannot_be_cancelled(world):
    run_id = await failed_second(world)
    with pytest.raises(Conflict, match="has failed"):
        await world.do(steer.cancel, run_id)


async def test_steering_on_an_old_version_is_refused(world):
    run_id = await world.submit()
    await world.do(steer.cancel, run_id, expected_version=1)
    with pytest.raises(AbruzziError, match="changed meanwhile"):
        await world.do(steer.cancel, run_id, expected_version=1)


async def test_a_retry_runs_again_what_did_not_succeed_and_keeps_the_rest(world):
    run_id = await failed_second(world)
    before = await world.get(run_id)
    assert [s.state for s in before.detail] == [StageState.SUCCEEDED, StageState.FAILED, StageState.SKIPPED]
    await world.do(steer.retry, run_id, None)
    await world.steps(run_id)
    run = await world.get(run_id)
    assert run.state is RunState.RUNNING
    assert [a.number for a in run.detail[1].attempts] == [1, 2]
    assert run.detail[1].attempts[0] == before.detail[1].attempts[0], "the old attempt is the record of what happened"
    assert run.detail[1].attempts[1].epoch > run.detail[1].attempts[0].epoch
    spec = await world.store.spec(f"{run_id}-second-2")
    assert spec.resume is not None
    assert "step-00000020" in spec.resume.manifest_key
    await world.end(f"{run_id}-second-2")
    await world.end(f"{run_id}-third-1")
    ended = await world.get(run_id)
    assert ended.state is RunState.SUCCEEDED
    assert len(ended.detail[0].attempts) == 1


async def test_a_retry_has_a_whole_budget_again(world):
    run_id = await world.submit()
    await world.steps(run_id)
    for number in (1, 2, 3):
        await world.end(f"{run_id}-first-{number}", exit_code=1)
        world.clock.turn(1000)
        await world.steps(run_id)
    assert (await world.get(run_id)).state is RunState.FAILED
    await world.do(steer.retry, run_id, "first")
    await world.steps(run_id)
    for number in (4, 5):
        await world.end(f"{run_id}-first-{number}", exit_code=1)
        world.clock.turn(1000)
        await world.steps(run_id)
    assert (await world.get(run_id)).state is RunState.RUNNING


async def test_a_retry_from_a_stage_that_succeeded_runs_what_needs_it_again(world):
    run_id = await failed_second(world)
    await world.do(steer.retry, run_id, "first")
    run = await world.get(run_id)
    assert [s.state for s in run.detail] == [StageState.WAITING] * 3


async def test_only_a_failed_or_cancelled_run_can_be_retried(world):
    run_id = await world.submit()
    with pytest.raises(Conflict, match="still pending"):
        await world.do(steer.retry, run_id, None)
    with pytest.raises(NotFound, match="nothing"):
        await world.do(steer.retry, await failed_second(world), "nothing")


async def stopped_by_gate(world) -> str:
    run_id = await finished_first(world)
    await world.commit(f"{run_id}-second-1", "checkpoint", "final", "ten", step=10, score=3.5)
    await world.end(f"{run_id}-second-1")
    await world.steps(run_id)
    return run_id


async def test_a_gate_stops_a_run_and_an_override_lets_it_go_on(world):
    run_id = await stopped_by_gate(world)
    stopped = await world.get(run_id)
    assert (stopped.state, stopped.detail[2].state) == (RunState.FAILED, StageState.SKIPPED)
    assert "score is 3.5" in (stopped.detail[2].reason or "")
    await world.do(steer.override_gate, run_id, "third", by="maintainer:ann", reason="people read the answers")
    await world.steps(run_id)
    run = await world.get(run_id)
    assert (run.state, run.detail[2].state) == (RunState.RUNNING, StageState.RUNNING)
    async with transaction(world.sessions) as session:
        told = [e for e in await events.read(session, run_id=run_id) if e.kind == "gate.overridden"]
    assert [(e.body["by"], e.body["reason"], e.body["stage"]) for e in told] == [
        ("maintainer:ann", "people read the answers", "third")
    ]
    await world.end(f"{run_id}-third-1")
    ended = await world.get(run_id)
    assert (ended.state, len(ended.detail[1].attempts)) == (RunState.SUCCEEDED, 1)


async def gate_of(world, run_id: str) -> GateOut:
    async with transaction(world.sessions) as session:
        run = await query.row(session, run_id)
        [gate] = gates_of(run, await query.stage_rows(session, run_id))
    return gate


async def test_a_gate_says_which_condition_fails_by_how_much_and_whether_it_stops_the_run(world):
    before = await gate_of(world, await world.submit())
    assert (before.holds, before.stops, before.clauses[0].value) == (False, False, None)
    run_id = await stopped_by_gate(world)
    stopped = await gate_of(world, run_id)
    [clause] = stopped.clauses
    assert (clause.stage_id, clause.fact, clause.value, clause.holds) == ("second", "score", 3.5, False)
    assert clause.short_by == pytest.approx(abs(3.5 - clause.bound))
    assert stopped.stops
    await world.do(steer.override_gate, run_id, "third", by="maintainer:ann", reason="fine")
    passed = await gate_of(world, run_id)
    assert (passed.stops, passed.override and passed.override.by) == (False, "maintainer:ann")


async def test_an_override_is_forgotten_where_what_the_gate_looks_at_is_made_again(world):
    run_id = await stopped_by_gate(world)
    await world.do(steer.override_gate, run_id, "third", by="maintainer:ann", reason="fine")
    await world.steps(run_id)
    await world.end(f"{run_id}-third-1", exit_code=64)
    await world.do(steer.retry, run_id, "second")
    await world.steps(run_id)
    await world.commit(f"{run_id}-second-2", "checkpoint", "final", "ten", step=10, score=3.0)
    await world.end(f"{run_id}-second-2")
    await world.steps(run_id)
    run = await world.get(run_id)
    assert (run.state, run.detail[2].state) == (RunState.FAILED, StageState.SKIPPED)


async def test_what_is_no_closed_gate_cannot_be_overridden(world):
    run_id = await failed_second(world)
    with pytest.raises(NotFound) as ungated:
        await world.do(steer.override_gate, run_id, "first", by="maintainer:ann", reason="so")
    with pytest.raises(Conflict) as holding:
        await world.do(steer.override_gate, run_id, "third", by="maintainer:ann", reason="so")
    await world.do(steer.retry, run_id, None)
    await world.steps(run_id)
    await world.end(f"{run_id}-second-2")
    with pytest.raises(Conflict) as passed:
        await world.do(steer.override_gate, run_id, "third", by="maintainer:ann", reason="so")
    assert ungated.value.hint == "Stages of the run that have one: third."
    assert (holding.value.code, holding.value.message) == (
        "gate_holds",
        "The gate of stage 'third' holds; there is nothing to override.",
    )
    assert passed.value.code == "gate_passed"
    assert passed.value.message.endswith(": its gate is behind it.")


async def test_a_gate_is_not_overridden_before_what_it_looks_at_was_made(world):
    run_id = await finished_first(world)
    with pytest.raises(Conflict, match="'third' has not been judged yet: stage 'second' is running"):
        await world.do(steer.override_gate, run_id, "third", by="maintainer:ann", reason="so")
    await world.commit(f"{run_id}-second-1", "checkpoint", "step-00000010", "ten", step=10, score=3.5)
    await world.end(f"{run_id}-second-1", exit_code=64)
    with pytest.raises(Conflict, match="'third' has not been judged yet: stage 'second' is failed"):
        await world.do(steer.override_gate, run_id, "third", by="maintainer:ann", reason="so")
    run = await world.get(run_id)
    assert (run.state, [s.state for s in run.detail]) == (
        RunState.FAILED, [StageState.SUCCEEDED, StageState.FAILED, StageState.SKIPPED],
    )  # fmt: skip
    async with transaction(world.sessions) as session:
        assert [e for e in await events.read(session, run_id=run_id) if e.kind == "gate.overridden"] == []


async def test_a_branch_goes_on_from_the_chosen_checkpoint_with_the_parents_outputs(world):
    parent = await failed_second(world)
    chosen = await checkpoint_id(world, parent, "step-00000010")
    child = await world.do(
        submit.branch,
        parent,
        chosen,
        overrides={"stage.second.seed": "3"},
        objects=world.objects,
        actor="me",
        name="again",
    )
    await world.steps(child)
    run = await world.get(child)
    assert (run.parent_run_id, run.parent_artifact_id, run.name) == (parent, chosen, "again")
    assert [s.state for s in run.detail] == [StageState.SUCCEEDED, StageState.RUNNING, StageState.WAITING]
    ours, theirs = await world.store.spec(f"{child}-second-1"), await world.store.spec(f"{parent}-second-1")
    assert ours.inputs == theirs.inputs
    assert ours.resume is not None
    assert f"runs/{parent}/second/e2/step-00000010/" in ours.resume.manifest_key
    assert ours.seed == 3
    assert is_pinned(world.objects, ours.resume.manifest_key), "the parent's retention must leave it"
    # It makes no checkpoint of its own: what follows gets the chosen one and its gate the score of that one, not the parent's later ones.
    await world.end(f"{child}-second-1")
    assert "step-00000010" in (await world.store.spec(f"{child}-third-1")).inputs["model"].manifest_key


async def test_a_branch_may_not_change_what_came_before(world):
    parent = await failed_second(world)
    chosen = await checkpoint_id(world, parent, "step-00000010")
    with pytest.raises(Conflict, match=r"'first' comes before the checkpoint .* but seed differ"):
        await world.do(
            submit.branch, parent, chosen, overrides={"stage.first.seed": "3"}, objects=world.objects, actor="me"
        )
    with pytest.raises(Conflict, match="no checkpoint"):
        await world.do(
            submit.branch, parent, await checkpoint_id(world, parent, "files"), objects=world.objects, actor="me"
        )


async def test_a_stop_of_the_platform_interrupts_and_the_next_start_goes_on_for_free(world):
    run_id, ended = await finished_first(world), await failed_second(world)
    assert await world.do(steer.interrupt_all) == 1
    await world.steps(run_id)
    async with transaction(world.sessions) as session:
        assert await steer.unsettled(session) == 1
    await world.commit(f"{run_id}-second-1", "checkpoint", "step-00000010", step=10)
    await world.end(f"{run_id}-second-1", exit_code=143)
    assert (await world.get(run_id)).state is RunState.INTERRUPTED
    async with transaction(world.sessions) as session:
        assert await steer.unsettled(session) == 0
    assert await world.do(steer.resume_interrupted) == 1
    await world.steps(run_id)
    run = await world.get(run_id)
    assert run.state is RunState.RUNNING
    assert [a.state for a in run.detail[1].attempts] == [AttemptState.INTERRUPTED, AttemptState.RUNNING]
    assert (await world.store.spec(f"{run_id}-second-2")).resume is not None
    assert (await world.store.load(ended)).desired is Desired.RUN


async def test_an_interrupted_run_can_be_cancelled(world):
    run_id = await world.submit()
    await world.do(steer.interrupt_all)
    await world.steps(run_id)
    assert (await world.get(run_id)).state is RunState.INTERRUPTED
    await world.do(steer.cancel, run_id)
    await world.steps(run_id)
    assert (await world.get(run_id)).state is RunState.CANCELLED
