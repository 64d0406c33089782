"""What a RunStore does, whichever it is: the simulation's store in memory and the one over Postgres are held to the same words.

A test file per store subclasses the two suites and gives a `ground` (run_store_ground.py).
"""

from __future__ import annotations

import asyncio

import pytest
from simulation.run_store_ground import Ground

from abruzzi.contracts.errors import Conflict, NotFound
from abruzzi.contracts.reason import Reason
from abruzzi.contracts.states import AttemptState, Cause, RunState, StageState
from abruzzi.engine.actions import CreateAttempt, SetAttempt, SetRun, SetStage, Write
from abruzzi.engine.ports import IllegalWrite, StaleLease, VersionConflict

FIRST, SECOND, THIRD = "first", "second", "third"


class LeaseContract:
    """Who may touch a run, and when."""

    async def test_a_run_that_is_due_is_leased_by_one_controller_until_its_time_is_over(self, ground: Ground) -> None:
        run_id = await ground.submit()
        [first] = await ground.store.lease("one", limit=10, ttl_seconds=10)
        assert (first.run_id, first.owner, first.expires_at) == (run_id, "one", ground.now() + 10)
        assert await ground.store.lease("two", limit=10, ttl_seconds=10) == []
        ground.turn(10.5)
        [second] = await ground.store.lease("two", limit=10, ttl_seconds=10)
        assert second.run_id == run_id
        assert second.token > first.token

    async def test_controllers_that_ask_at_once_never_share_a_run_and_get_no_more_than_they_asked_for(
        self, ground: Ground
    ) -> None:
        runs = {await ground.submit() for _ in range(7)}
        asked = await asyncio.gather(*(ground.store.lease(f"c{i}", limit=2, ttl_seconds=10) for i in range(3)))
        held = [lease.run_id for leases in asked for lease in leases]
        assert all(len(leases) <= 2 for leases in asked)
        assert len(held) == len(set(held))
        rest = await ground.store.lease("last", limit=10, ttl_seconds=10)
        assert sorted([*held, *(lease.run_id for lease in rest)]) == sorted(runs)

    async def test_the_run_that_has_been_due_longest_comes_first(self, ground: Ground) -> None:
        young, old, abandoned = [await ground.submit() for _ in range(3)]
        leases = {lease.run_id: lease for lease in await ground.store.lease("one", limit=10, ttl_seconds=5)}
        await ground.store.release(leases[young], wake_at=ground.now() + 20)
        await ground.store.release(leases[old], wake_at=ground.now() + 10)
        ground.turn(30)
        order = [(await ground.store.lease("two", limit=1, ttl_seconds=90))[0].run_id for _ in range(3)]
        assert order == [abandoned, old, young]

    async def test_a_renewed_lease_is_kept(self, ground: Ground) -> None:
        await ground.submit()
        [lease] = await ground.store.lease("one", limit=1, ttl_seconds=10)
        ground.turn(9)
        renewed = await ground.store.renew(lease, ttl_seconds=10)
        assert (renewed.token, renewed.expires_at) == (lease.token, ground.now() + 10)
        ground.turn(9)
        assert await ground.store.lease("two", limit=1, ttl_seconds=10) == []

    async def test_an_expired_lease_that_nobody_took_still_holds(self, ground: Ground) -> None:
        run_id = await ground.submit()
        [lease] = await ground.store.lease("one", limit=1, ttl_seconds=10)
        ground.turn(60)
        assert (await ground.store.apply(lease, 1, [SetRun(RunState.RUNNING)])).version == 2
        await ground.store.renew(lease, ttl_seconds=10)
        assert await ground.store.lease("two", limit=1, ttl_seconds=10) == []
        assert (await ground.store.load(run_id)).state is RunState.RUNNING

    async def test_a_stale_token_is_refused_everywhere_and_changes_nothing(self, ground: Ground) -> None:
        run_id = await ground.submit()
        [stale] = await ground.store.lease("one", limit=1, ttl_seconds=10)
        await ground.store.apply(stale, 1, [CreateAttempt(FIRST, 1, 1)])
        await ground.commit(f"{run_id}-{FIRST}-1", "step-00000001", score=1.0)
        ground.turn(11)
        [current] = await ground.store.lease("two", limit=1, ttl_seconds=10)
        before = await ground.store.load(run_id), await ground.events(run_id)
        with pytest.raises(StaleLease):
            await ground.store.apply(stale, 2, [SetRun(RunState.RUNNING)])
        with pytest.raises(StaleLease):
            await ground.store.renew(stale, ttl_seconds=10)
        with pytest.raises(StaleLease):
            await ground.store.collect_artifacts(stale, f"{run_id}-{FIRST}-1")
        await ground.store.release(stale, wake_at=ground.now())
        assert await ground.store.lease("three", limit=1, ttl_seconds=10) == [], "the stale one gave the run away"
        assert (await ground.store.load(run_id), await ground.events(run_id)) == before
        assert (await ground.store.apply(current, 2, [SetRun(RunState.RUNNING)])).version == 3

    async def test_a_lease_that_was_given_back_is_none_and_locks_nobody_out(self, ground: Ground) -> None:
        run_id = await ground.submit()
        [lease] = await ground.store.lease("one", limit=1, ttl_seconds=10)
        await ground.store.apply(lease, 1, [CreateAttempt(FIRST, 1, 1)])
        await ground.store.release(lease, wake_at=ground.now())
        with pytest.raises(StaleLease):
            await ground.store.renew(lease, ttl_seconds=10)
        with pytest.raises(StaleLease):
            await ground.store.apply(lease, 2, [SetRun(RunState.RUNNING)])
        with pytest.raises(StaleLease):
            await ground.store.collect_artifacts(lease, f"{run_id}-{FIRST}-1")
        await ground.store.release(lease, wake_at=ground.now())
        assert [found.run_id for found in await ground.store.lease("two", limit=1, ttl_seconds=10)] == [run_id]

    async def test_a_released_run_sleeps_until_its_date_and_without_one_until_it_is_rung(self, ground: Ground) -> None:
        run_id = await ground.submit()
        [lease] = await ground.store.lease("one", limit=1, ttl_seconds=10)
        await ground.store.release(lease, wake_at=ground.now() + 60)
        ground.turn(59)
        assert await ground.store.lease("one", limit=1, ttl_seconds=10) == []
        ground.turn(2)
        [lease] = await ground.store.lease("one", limit=1, ttl_seconds=10)
        await ground.store.release(lease, wake_at=None)
        ground.turn(1e6)
        assert await ground.store.lease("one", limit=1, ttl_seconds=10) == []
        await ground.cancel(run_id)
        assert [found.run_id for found in await ground.store.lease("one", limit=1, ttl_seconds=10)] == [run_id]

    async def test_a_request_during_a_lease_is_seen_as_soon_as_it_is_given_back(self, ground: Ground) -> None:
        run_id = await ground.submit()
        [lease] = await ground.store.lease("one", limit=1, ttl_seconds=60)
        await ground.cancel(run_id)
        ground.turn(1)
        assert await ground.store.lease("two", limit=1, ttl_seconds=60) == []
        await ground.store.release(lease, wake_at=ground.now() + 3600)
        assert [found.run_id for found in await ground.store.lease("two", limit=1, ttl_seconds=60)] == [run_id]

    async def test_a_run_that_is_woken_comes_before_those_whose_date_is_long_past_and_a_leased_one_next(
        self, ground: Ground
    ) -> None:
        waiting, woken, held = [await ground.submit() for _ in range(3)]
        leases = {lease.run_id: lease for lease in await ground.store.lease("one", limit=10, ttl_seconds=900)}
        await ground.store.release(leases[waiting], wake_at=ground.now() + 10)
        await ground.store.release(leases[woken], wake_at=None)
        ground.turn(600)
        await ground.store.wake([woken, held, "nosuchrun0"])
        order = [lease.run_id for _ in range(2) for lease in await ground.store.lease("two", limit=1, ttl_seconds=90)]
        assert order == [woken, waiting], "what another holds is not taken away"
        await ground.store.release(leases[held], wake_at=ground.now() + 3600)
        assert [lease.run_id for lease in await ground.store.lease("two", limit=10, ttl_seconds=90)] == [held]
        assert await ground.store.lease("two", limit=10, ttl_seconds=90) == []

    async def test_an_attempt_has_the_ranks_it_was_made_with_and_keeps_those_of_the_next(self, ground: Ground) -> None:
        run_id = await ground.submit()
        [lease] = await ground.store.lease("one", limit=1, ttl_seconds=10)
        view = await ground.store.apply(
            lease, 1, [CreateAttempt(FIRST, 1, 1), CreateAttempt(SECOND, 1, 2, world_size=3)]
        )
        made = {stage.id: stage.attempts[-1] for stage in view.stages if stage.attempts}
        assert (made[FIRST].world_size, made[SECOND].world_size) == (None, 3)
        stop = SetAttempt(made[SECOND].id, AttemptState.STOPPING, stop_cause=Cause.RESIZE, resize_to=5)
        await ground.store.apply(lease, 2, [stop])
        found = next(s for s in (await ground.store.load(run_id)).stages if s.id == SECOND).attempts[-1]
        assert (found.world_size, found.resize_to, found.stop_cause) == (3, 5, Cause.RESIZE)

    async def test_an_unknown_run_is_not_found(self, ground: Ground) -> None:
        with pytest.raises(NotFound):
            await ground.store.load("nosuchrun0")
        with pytest.raises(NotFound):
            await ground.store.spec("nosuchrun0-first-1")


class WriteContract:
    """What a decision may change, and what stays whatever is decided."""

    async def test_a_decision_is_applied_whole_and_the_view_tells_it(self, ground: Ground) -> None:
        run_id, lease = await ground.leased()
        later = ground.now() + 30
        written = await ground.store.apply(
            lease, 1, [CreateAttempt(FIRST, 1, 3), SetStage(FIRST, StageState.RUNNING, "why", later), SetRun(RunState.RUNNING)]
        )  # fmt: skip
        run = await ground.store.load(run_id)
        [attempt] = run.stages[0].attempts
        assert written == run
        assert (run.version, run.state, run.last_epoch) == (2, RunState.RUNNING, 3)
        assert (run.stages[0].state, run.stages[0].not_before) == (StageState.RUNNING, later)
        assert (attempt.id, attempt.number, attempt.epoch) == (f"{run_id}-{FIRST}-1", 1, 3)
        assert (attempt.state, attempt.created_at) == (AttemptState.CREATED, ground.now())
        assert not attempt.workload_removed
        assert [s.state for s in run.stages[1:]] == [StageState.WAITING] * 2

    async def test_a_field_that_is_not_named_stays_and_every_named_one_is_told(self, ground: Ground) -> None:
        run_id, lease = await ground.leased()
        attempt_id, now = f"{run_id}-{FIRST}-1", ground.now()
        stopping = SetAttempt(
            attempt_id, AttemptState.STOPPING, reason="stalled", started_at=now, stop_requested_at=now + 1, stop_cause=Cause.HANG,
            stacks_requested_at=now + 2, node="node-4", held_at=now - 3,
        )  # fmt: skip
        await ground.store.apply(lease, 1, [CreateAttempt(FIRST, 1, 1), stopping])
        ended = SetAttempt(attempt_id, AttemptState.FAILED, cause=Cause.HANG, exit_code=143, ended_at=now + 5)
        await ground.store.apply(lease, 2, [ended])
        await ground.store.apply(lease, 3, [SetAttempt(attempt_id, AttemptState.FAILED, workload_removed=True)])
        [attempt] = (await ground.store.load(run_id)).stages[0].attempts
        assert (attempt.state, attempt.cause, attempt.exit_code) == (AttemptState.FAILED, Cause.HANG, 143)
        assert (attempt.reason, attempt.node, attempt.stop_cause) == ("stalled", "node-4", Cause.HANG)
        assert (attempt.started_at, attempt.stop_requested_at) == (now, now + 1)
        assert (attempt.stacks_requested_at, attempt.ended_at, attempt.held_at) == (now + 2, now + 5, now - 3)
        assert attempt.workload_removed

    async def test_an_empty_reason_takes_the_one_away_that_no_longer_holds(self, ground: Ground) -> None:
        run_id, lease = await ground.leased()
        attempt_id = f"{run_id}-{FIRST}-1"
        waits = SetAttempt(
            attempt_id, AttemptState.STARTING, reason="No node takes it.", waits_for=Reason.WAITS_FOR_NODES
        )
        await ground.store.apply(lease, 1, [CreateAttempt(FIRST, 1, 1), waits])
        [attempt] = (await ground.store.load(run_id)).stages[0].attempts
        assert (attempt.reason, attempt.waits_for) == ("No node takes it.", Reason.WAITS_FOR_NODES)
        await ground.store.apply(lease, 2, [SetAttempt(attempt_id, AttemptState.RUNNING, reason="", waits_for="")])
        [attempt] = (await ground.store.load(run_id)).stages[0].attempts
        assert (attempt.reason, attempt.waits_for) == (None, None)

    async def test_a_stage_keeps_no_date_that_its_last_write_did_not_name(self, ground: Ground) -> None:
        run_id, lease = await ground.leased()
        await ground.store.apply(lease, 1, [SetStage(FIRST, StageState.PENDING, None, ground.now() + 9)])
        await ground.store.apply(lease, 2, [SetStage(FIRST, StageState.RUNNING)])
        assert (await ground.store.load(run_id)).stages[0].not_before is None

    async def test_an_attempt_that_ended_without_a_date_ended_now(self, ground: Ground) -> None:
        run_id, lease = await ground.leased()
        await ground.store.apply(lease, 1, [CreateAttempt(FIRST, 1, 1)])
        ground.turn(7)
        await ground.store.apply(lease, 2, [SetAttempt(f"{run_id}-{FIRST}-1", AttemptState.FAILED)])
        [attempt] = (await ground.store.load(run_id)).stages[0].attempts
        assert attempt.ended_at == ground.now()

    async def test_a_decision_on_an_old_version_is_refused_whole(self, ground: Ground) -> None:
        run_id, lease = await ground.leased()
        await ground.cancel(run_id)
        before = await ground.store.load(run_id), await ground.events(run_id)
        with pytest.raises(VersionConflict):
            await ground.store.apply(lease, 1, [CreateAttempt(FIRST, 1, 1), SetRun(RunState.RUNNING)])
        assert (await ground.store.load(run_id), await ground.events(run_id)) == before

    async def test_the_same_decision_twice_is_done_once(self, ground: Ground) -> None:
        run_id, lease = await ground.leased()
        decision = [CreateAttempt(FIRST, 1, 1), SetStage(FIRST, StageState.RUNNING)]
        await ground.store.apply(lease, 1, decision)
        before = await ground.store.load(run_id), await ground.events(run_id)
        with pytest.raises(VersionConflict):
            await ground.store.apply(lease, 1, decision)
        assert (await ground.store.load(run_id), await ground.events(run_id)) == before

    @pytest.mark.parametrize(
        ("wrong", "error"),
        [
            (SetAttempt("{run}-first-9", AttemptState.RUNNING), NotFound),
            (SetAttempt("{other}-first-1", AttemptState.RUNNING), NotFound),
            (SetStage("nothing", StageState.RUNNING), NotFound),
            (CreateAttempt("nothing", 1, 9), NotFound),
            (CreateAttempt("first", 1, 9), IllegalWrite),
            (CreateAttempt("first", 2, 5), IllegalWrite),
            (CreateAttempt("first", 2, 4), IllegalWrite),
        ],
        ids=["no such attempt", "another run's", "no such stage", "in no stage", "number taken", "epoch taken", "epoch falls"],
    )  # fmt: skip
    async def test_a_wrong_write_takes_the_others_of_its_decision_with_it(
        self, ground: Ground, wrong: Write, error: type[Exception]
    ) -> None:
        other, lease = await ground.leased()
        await ground.store.apply(lease, 1, [CreateAttempt(FIRST, 1, 1)])
        run_id, lease = await ground.leased()
        await ground.store.apply(lease, 1, [CreateAttempt(FIRST, 1, 5)])
        before = await ground.store.load(run_id), await ground.events(run_id)
        if isinstance(wrong, SetAttempt):
            wrong = SetAttempt(wrong.attempt_id.format(run=run_id, other=other), wrong.state)
        with pytest.raises(error):
            await ground.store.apply(lease, 2, [SetStage(SECOND, StageState.PENDING), wrong])
        assert (await ground.store.load(run_id), await ground.events(run_id)) == before

    @pytest.mark.parametrize("end", [s for s in AttemptState if s.is_terminal])
    async def test_an_ended_attempt_keeps_its_outcome(self, ground: Ground, end: AttemptState) -> None:
        run_id, lease = await ground.leased()
        attempt_id = f"{run_id}-{FIRST}-1"
        ended = SetAttempt(attempt_id, end, cause=Cause.UNKNOWN, exit_code=3)
        await ground.store.apply(lease, 1, [CreateAttempt(FIRST, 1, 1), ended])
        other = next(s for s in AttemptState if s.is_terminal and s is not end)
        for change in (
            SetAttempt(attempt_id, AttemptState.RUNNING),
            SetAttempt(attempt_id, other),
            SetAttempt(attempt_id, end, cause=Cause.HANG),
            SetAttempt(attempt_id, end, exit_code=4),
        ):
            with pytest.raises(IllegalWrite):
                await ground.store.apply(lease, 2, [change])
        await ground.store.apply(lease, 2, [ended])
        [attempt] = (await ground.store.load(run_id)).stages[0].attempts
        assert (attempt.state, attempt.cause, attempt.exit_code) == (end, Cause.UNKNOWN, 3)

    @pytest.mark.parametrize("end", [s for s in StageState if s.is_terminal])
    async def test_an_ended_stage_stays_so(self, ground: Ground, end: StageState) -> None:
        run_id, lease = await ground.leased()
        await ground.store.apply(lease, 1, [SetStage(FIRST, end)])
        for state in StageState:
            if state is not end:
                with pytest.raises(IllegalWrite):
                    await ground.store.apply(lease, 2, [SetStage(FIRST, state)])
        assert (await ground.store.load(run_id)).stages[0].state is end

    @pytest.mark.parametrize("end", [s for s in RunState if s.is_terminal])
    async def test_an_ended_run_stays_so(self, ground: Ground, end: RunState) -> None:
        run_id, lease = await ground.leased()
        await ground.store.apply(lease, 1, [SetRun(end)])
        for state in RunState:
            if state is not end:
                with pytest.raises(IllegalWrite):
                    await ground.store.apply(lease, 2, [SetRun(state)])
        assert (await ground.store.load(run_id)).state is end

    async def test_every_write_may_be_repeated_changes_nothing_then_and_tells_nobody_twice(
        self, ground: Ground
    ) -> None:
        run_id, lease = await ground.leased()
        attempt_id = f"{run_id}-{FIRST}-1"
        await ground.store.apply(lease, 1, [CreateAttempt(FIRST, 1, 1)])
        writes: list[Write] = [
            SetAttempt(attempt_id, AttemptState.RUNNING, started_at=ground.now(), node="here"),
            SetStage(FIRST, StageState.RUNNING, "why", ground.now() + 5),
            SetRun(RunState.RUNNING, "why"),
            SetAttempt(attempt_id, AttemptState.SUCCEEDED, exit_code=0, ended_at=ground.now()),
            SetStage(FIRST, StageState.SUCCEEDED),
            SetRun(RunState.SUCCEEDED),
        ]
        before = await ground.store.load(run_id)
        for write in writes:
            before = await ground.store.apply(lease, before.version, [write])
            told = await ground.events(run_id)
            ground.turn(1)
            after = await ground.store.apply(lease, before.version, [write])
            assert (after.state, after.stages) == (before.state, before.stages)
            assert await ground.events(run_id) == told
            before = after
        assert await ground.outbox(run_id) == ["run.submitted", "run.ended"]

    async def test_every_change_of_state_is_told_once_and_in_order(self, ground: Ground) -> None:
        run_id, lease = await ground.leased()
        attempt_id = f"{run_id}-{FIRST}-1"
        await ground.store.apply(
            lease, 1, [SetRun(RunState.RUNNING), SetStage(FIRST, StageState.RUNNING), CreateAttempt(FIRST, 1, 1)]
        )
        await ground.store.apply(lease, 2, [SetAttempt(attempt_id, AttemptState.RUNNING)])
        with pytest.raises(VersionConflict):
            await ground.store.apply(lease, 2, [SetStage(FIRST, StageState.FAILED)])
        await ground.store.apply(
            lease,
            3,
            [
                SetAttempt(attempt_id, AttemptState.FAILED),
                SetStage(FIRST, StageState.FAILED),
                SetRun(RunState.FAILED),
            ],
        )
        assert await ground.events(run_id) == [
            ("run.state", "", "pending"), ("run.state", "", "running"), ("stage.state", FIRST, "running"),
            ("attempt.state", attempt_id, "created"), ("attempt.state", attempt_id, "running"), ("attempt.state", attempt_id, "failed"),
            ("stage.state", FIRST, "failed"), ("run.state", "", "failed"),
        ]  # fmt: skip


class RequestContract:
    """What people ask for and processes report, as the engine sees it."""

    async def test_a_cancel_is_seen_wakes_the_run_and_is_asked_for_once(self, ground: Ground) -> None:
        run_id, lease = await ground.leased()
        await ground.store.release(lease, wake_at=None)
        await ground.cancel(run_id)
        run = await ground.store.load(run_id)
        assert (run.desired.value, run.state, run.version) == ("cancel", RunState.CANCELLING, 2)
        await ground.cancel(run_id)
        assert (await ground.store.load(run_id)).version == 2
        assert [found.run_id for found in await ground.store.lease("two", limit=1, ttl_seconds=9)] == [run_id]

    async def test_a_run_that_has_ended_otherwise_cannot_be_cancelled(self, ground: Ground) -> None:
        run_id, lease = await ground.leased()
        await ground.store.apply(lease, 1, [SetRun(RunState.FAILED)])
        with pytest.raises(Conflict):
            await ground.cancel(run_id)

    async def test_an_interruption_reaches_what_runs_and_its_end_what_was_interrupted(self, ground: Ground) -> None:
        running, cancelled, ended = [await ground.submit() for _ in range(3)]
        leases = {lease.run_id: lease for lease in await ground.store.lease("one", limit=10, ttl_seconds=60)}
        await ground.store.apply(leases[ended], 1, [SetRun(RunState.SUCCEEDED)])
        await ground.cancel(cancelled)
        await ground.interrupt()
        runs = (running, cancelled, ended)
        assert [(await ground.store.load(r)).desired.value for r in runs] == ["interrupt", "cancel", "run"]
        with pytest.raises(VersionConflict):
            await ground.store.apply(leases[running], 1, [CreateAttempt(FIRST, 1, 1)])
        await ground.resume()
        assert [(await ground.store.load(r)).desired.value for r in runs] == ["run", "cancel", "run"]
        assert [(await ground.store.load(r)).version for r in runs] == [3, 2, 2]

    async def test_a_retry_opens_what_did_not_succeed_with_a_whole_budget_and_growing_numbers(
        self, ground: Ground
    ) -> None:
        run_id = await ground.failed_second()
        before = await ground.store.load(run_id)
        await ground.retry(run_id)
        run = await ground.store.load(run_id)
        assert (run.state, run.desired.value, run.version) == (RunState.PENDING, "run", before.version + 1)
        assert [s.state for s in run.stages] == [StageState.SUCCEEDED, StageState.WAITING, StageState.WAITING]
        assert [(len(s.attempts), s.attempts_before) for s in run.stages] == [(1, 0), (0, 1), (0, 0)]
        assert (run.last_epoch, run.stages[0].attempts) == (2, before.stages[0].attempts)
        [lease] = await ground.store.lease("two", limit=1, ttl_seconds=60)
        for illegal in (CreateAttempt(SECOND, 1, 3), CreateAttempt(SECOND, 2, 2)):
            with pytest.raises(IllegalWrite):
                await ground.store.apply(lease, run.version, [illegal])
        await ground.store.apply(lease, run.version, [CreateAttempt(SECOND, 2, 3)])
        assert [a.number for a in (await ground.store.load(run_id)).stages[1].attempts] == [2]

    async def test_an_attempt_of_before_a_retry_stays_the_record_of_what_happened(self, ground: Ground) -> None:
        run_id = await ground.failed_second()
        await ground.retry(run_id)
        [lease] = await ground.store.lease("two", limit=1, ttl_seconds=60)
        run = await ground.store.load(run_id)
        with pytest.raises(IllegalWrite):
            await ground.store.apply(
                lease, run.version, [SetAttempt(f"{run_id}-{SECOND}-1", AttemptState.SUCCEEDED, exit_code=0)]
            )
        assert (await ground.store.spec(f"{run_id}-{FIRST}-1")).epoch == 1

    async def test_a_retry_from_a_stage_opens_what_needs_it_too(self, ground: Ground) -> None:
        run_id = await ground.failed_second()
        told = await ground.events(run_id)
        await ground.retry(run_id, FIRST)
        run = await ground.store.load(run_id)
        assert [s.state for s in run.stages] == [StageState.WAITING] * 3
        assert [s.attempts_before for s in run.stages] == [1, 1, 0]
        assert (await ground.events(run_id))[len(told) :] == [
            *(("stage.state", s, "waiting") for s in (FIRST, SECOND, THIRD)),
            ("run.state", "", "pending"),
        ]

    async def test_only_a_failed_or_cancelled_run_and_only_from_a_stage_of_it_can_be_retried(
        self, ground: Ground
    ) -> None:
        run_id, lease = await ground.leased()
        with pytest.raises(Conflict):
            await ground.retry(run_id)
        await ground.store.apply(lease, 1, [SetRun(RunState.SUCCEEDED)])
        with pytest.raises(Conflict):
            await ground.retry(run_id)
        with pytest.raises(NotFound):
            await ground.retry(await ground.failed_second(), "nothing")

    async def test_a_branch_takes_what_comes_before_its_checkpoint_as_done(self, ground: Ground) -> None:
        parent = await ground.failed_second()
        child = await ground.branch(parent, SECOND, "step-00000010")
        run = await ground.store.load(child)
        assert (run.state, run.version, run.last_epoch) == (RunState.PENDING, 1, 0)
        assert [s.state for s in run.stages] == [StageState.SUCCEEDED, StageState.WAITING, StageState.WAITING]
        assert [(s.attempts, s.attempts_before) for s in run.stages] == [((), 0)] * 3
        assert [dict(s.facts) for s in run.stages] == [{"rows": 7.0}, {"score": 3.0}, {}]
        assert child in {lease.run_id for lease in await ground.store.lease("two", limit=9, ttl_seconds=9)}

    async def test_a_spec_says_whose_it_is_and_never_changes(self, ground: Ground) -> None:
        run_id, lease = await ground.leased()
        await ground.store.apply(lease, 1, [CreateAttempt(FIRST, 1, 6)])
        spec = await ground.store.spec(f"{run_id}-{FIRST}-1")
        assert (spec.run_id, spec.stage_id, spec.attempt_id) == (run_id, FIRST, f"{run_id}-{FIRST}-1")
        assert (spec.epoch, spec.world_size) == (6, 2)
        assert spec.output_prefix.endswith(f"/{run_id}/{FIRST}/")
        await ground.commit(spec.attempt_id, "step-00000010")
        await ground.store.apply(lease, 2, [SetAttempt(spec.attempt_id, AttemptState.RUNNING)])
        assert (await ground.store.spec(spec.attempt_id)).digest() == spec.digest()

    async def test_artifacts_are_collected_once_and_their_numbers_are_what_gates_see(self, ground: Ground) -> None:
        run_id, lease = await ground.leased()
        attempt_id = f"{run_id}-{FIRST}-1"
        await ground.store.apply(lease, 1, [CreateAttempt(FIRST, 1, 1)])
        assert await ground.store.collect_artifacts(lease, attempt_id) == 0
        await ground.commit(attempt_id, "step-00000010", score=3.0, rows=7.0)
        await ground.commit(attempt_id, "step-00000020", score=1.5)
        assert await ground.store.collect_artifacts(lease, attempt_id) == 2
        run, told = await ground.store.load(run_id), await ground.events(run_id)
        assert dict(run.stages[0].facts) == {"score": 1.5, "rows": 7.0}
        assert told[-2:] == [("artifact.created", FIRST, "step-00000010"), ("artifact.created", FIRST, "step-00000020")]
        assert await ground.store.collect_artifacts(lease, attempt_id) == 0
        assert (await ground.store.load(run_id), await ground.events(run_id)) == (run, told)
        assert run.version == 2, "nothing that was decided is outdated by an artifact"
        with pytest.raises(NotFound):
            await ground.store.collect_artifacts(lease, f"{run_id}-{FIRST}-2")

    async def test_artifacts_of_another_run_are_not_collected_under_this_runs_lease(self, ground: Ground) -> None:
        other, lease = await ground.leased()
        await ground.store.apply(lease, 1, [CreateAttempt(FIRST, 1, 1)])
        _, lease = await ground.leased()
        with pytest.raises(NotFound):
            await ground.store.collect_artifacts(lease, f"{other}-{FIRST}-1")

    async def test_the_newest_heartbeat_of_each_rank_is_in_the_view(self, ground: Ground) -> None:
        run_id, lease = await ground.leased()
        attempt_id = f"{run_id}-{FIRST}-1"
        await ground.store.apply(lease, 1, [CreateAttempt(FIRST, 1, 1)])
        await ground.beat(attempt_id, 0, 1, "setup")
        ground.turn(5)
        await ground.beat(attempt_id, 0, 12, "train")
        await ground.beat(attempt_id, 1, 11, "train")
        run = await ground.store.load(run_id)
        beats = run.stages[0].attempts[0].beats
        assert {r: (b.step, b.phase, b.at) for r, b in beats.items()} == {
            0: (12, "train", ground.now()), 1: (11, "train", ground.now()),
        }  # fmt: skip
        assert run.version == 2
        await ground.store.apply(lease, 2, [SetAttempt(attempt_id, AttemptState.FAILED)])
        with pytest.raises(Conflict):
            await ground.beat(attempt_id, 0, 13, "train")
