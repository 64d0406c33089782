"""The engine's judgement: outcomes, retries, hangs, and what holds for every decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from abruzzi.contracts.states import PHASE_ENDED, AttemptState, Cause, RunState, StageState
from abruzzi.engine.actions import (
    CollectArtifacts,
    CreateAttempt,
    CreateWorkload,
    Decision,
    DumpStacks,
    RemoveWorkload,
    SetAttempt,
    SetRun,
    SetStage,
    StopWorkload,
)
from abruzzi.engine.classify import classify
from abruzzi.engine.decide import decide, live_attempt, trailing
from abruzzi.engine.hang import deadline_seconds, find_stall, newest_beats
from abruzzi.engine.policy import (
    BLIND_SECONDS,
    GRACE_SECONDS,
    MOST_EXCLUDED_NODES,
    OBSERVE_SECONDS,
    POISON_AFTER,
    RULES,
    RUNG_SECONDS,
    RUNG_SILENT_SECONDS,
    STACKS_SECONDS,
    STOP_PATIENCE_SECONDS,
    RetryRule,
    backoff_seconds,
)
from abruzzi.engine.view import AttemptView, Desired, Leave, Phase, RankBeat, RunView, Seen, StageView

NOW = 10_000.0
RUN = "run0000000"


def attempt(number: int = 1, state: AttemptState = AttemptState.RUNNING, **fields: object) -> AttemptView:
    values = {"created_at": NOW - 100, "started_at": NOW - 100, **fields}
    return AttemptView(f"{RUN}-work-{number}", number, number, state, **values)  # type: ignore[arg-type]


def failed(number: int, cause: Cause, **fields: object) -> AttemptView:
    ended = {"cause": cause, "ended_at": NOW - 1, "workload_removed": True, "reason": f"{cause}.", **fields}
    return attempt(number, AttemptState.FAILED, **ended)


def stage(*attempts: AttemptView, state: StageState = StageState.RUNNING, **fields: object) -> StageView:
    return StageView("work", state, attempts=attempts, **fields)  # type: ignore[arg-type]


def run(*stages: StageView, desired: Desired = Desired.RUN, state: RunState = RunState.RUNNING) -> RunView:
    epochs = [a.epoch for s in stages for a in s.attempts]
    return RunView(RUN, state, desired, 3, stages, last_epoch=max(epochs, default=0))


def decided(view: RunView, seen: Seen | None = None, now: float = NOW) -> Decision:
    return decide(view, {f"{RUN}-work-{n}": seen for n in range(1, 30)} if seen else {}, now)


class TestOutcome:
    @pytest.mark.parametrize(
        ("stop_cause", "seen", "state", "cause"),
        [
            (None, Seen(Phase.EXITED, 0), AttemptState.SUCCEEDED, None),
            (Cause.CANCELLED, Seen(Phase.EXITED, 0), AttemptState.SUCCEEDED, None),
            (Cause.CANCELLED, Seen(Phase.EXITED, 64), AttemptState.CANCELLED, Cause.CANCELLED),
            (Cause.CANCELLED, Seen(Phase.GONE), AttemptState.CANCELLED, Cause.CANCELLED),
            (Cause.HANG, Seen(Phase.EXITED, 143), AttemptState.FAILED, Cause.HANG),
            (None, Seen(Phase.EXITED, 64), AttemptState.FAILED, Cause.USER_ERROR),
            (None, Seen(Phase.EXITED, 65), AttemptState.FAILED, Cause.BAD_DATA),
            (None, Seen(Phase.EXITED, 75), AttemptState.FAILED, Cause.INFRASTRUCTURE),
            (None, Seen(Phase.EXITED, 76), AttemptState.FAILED, Cause.DIVERGENCE),
            (None, Seen(Phase.EXITED, 143), AttemptState.INTERRUPTED, Cause.PREEMPTION),
            (None, Seen(Phase.EXITED, 137), AttemptState.FAILED, Cause.INFRASTRUCTURE),
            (None, Seen(Phase.EXITED, 137, out_of_memory=True), AttemptState.FAILED, Cause.OUT_OF_MEMORY),
            (None, Seen(Phase.EXITED, 137, node_lost=True), AttemptState.FAILED, Cause.NODE),
            (None, Seen(Phase.GONE, node_lost=True), AttemptState.FAILED, Cause.NODE),
            (None, Seen(Phase.GONE), AttemptState.FAILED, Cause.INFRASTRUCTURE),
            (None, Seen(Phase.EXITED), AttemptState.FAILED, Cause.INFRASTRUCTURE),
            (None, Seen(Phase.EXITED, 3), AttemptState.FAILED, Cause.UNKNOWN),
            (Cause.PREEMPTION, Seen(Phase.EXITED, 137), AttemptState.INTERRUPTED, Cause.PREEMPTION),
            (Cause.PREEMPTION, Seen(Phase.EXITED, 1), AttemptState.INTERRUPTED, Cause.PREEMPTION),
            (Cause.PREEMPTION, Seen(Phase.EXITED, 64), AttemptState.FAILED, Cause.USER_ERROR),
            (Cause.PREEMPTION, Seen(Phase.EXITED, 76), AttemptState.FAILED, Cause.DIVERGENCE),
            (Cause.NODE, Seen(Phase.EXITED, 143), AttemptState.INTERRUPTED, Cause.NODE),
            (Cause.NODE, Seen(Phase.EXITED, 137), AttemptState.FAILED, Cause.NODE),
            (Cause.NODE, Seen(Phase.GONE), AttemptState.FAILED, Cause.NODE),
            (Cause.NODE, Seen(Phase.EXITED, 64), AttemptState.FAILED, Cause.USER_ERROR),
        ],
    )  # fmt: skip
    def test_the_cause_comes_from_the_code_and_from_what_the_platform_did(
        self, stop_cause: Cause | None, seen: Seen, state: AttemptState, cause: Cause | None
    ) -> None:
        outcome = classify(attempt(stop_cause=stop_cause), seen)
        assert (outcome.state, outcome.cause) == (state, cause)
        assert (outcome.reason is None) == (state is AttemptState.SUCCEEDED)

    @given(
        st.builds(
            Seen,
            st.sampled_from([Phase.EXITED, Phase.GONE]),
            st.none() | st.integers(0, 255),
            out_of_memory=st.booleans(),
            node_lost=st.booleans(),
        ),
        st.none() | st.sampled_from(list(Cause)),
    )
    def test_every_end_has_an_outcome_and_only_a_clean_exit_is_a_success(self, seen: Seen, why: Cause | None) -> None:
        outcome = classify(attempt(stop_cause=why), seen)
        assert outcome.state.is_terminal
        assert (outcome.state is AttemptState.SUCCEEDED) == (seen.phase is Phase.EXITED and seen.exit_code == 0)


class TestRetry:
    def test_every_cause_has_a_rule(self) -> None:
        assert set(RULES) == set(Cause)

    @given(st.sampled_from([r for r in RULES.values() if r.retried]), st.integers(0, 10_000), st.text(max_size=20))
    def test_the_wait_is_bounded_and_the_same_whenever_asked(self, rule: RetryRule, failures: int, salt: str) -> None:
        wait = backoff_seconds(rule, failures, salt)
        assert 0.0 <= wait <= 1.5 * rule.most_seconds
        assert wait == backoff_seconds(rule, failures, salt)

    def test_the_wait_doubles(self) -> None:
        rule = RetryRule(retried=True, first_seconds=2.0, most_seconds=20.0)
        jitter = backoff_seconds(rule, 1, "x") / 2.0
        assert [backoff_seconds(rule, n, "x") / jitter for n in range(6)] == [0.0, 2.0, 4.0, 8.0, 16.0, 20.0]

    @pytest.mark.parametrize("cause", [c for c in Cause if not RULES[c].retried and c is not Cause.CANCELLED])
    def test_what_would_only_fail_again_is_not_retried(self, cause: Cause) -> None:
        assert decided(run(stage(failed(1, cause)))).writes == (SetStage("work", StageState.FAILED, f"{cause}."),)

    @pytest.mark.parametrize("cause", [Cause.HANG, Cause.DIVERGENCE, Cause.UNKNOWN])
    def test_what_counts_is_retried_within_the_budget_only(self, cause: Cause) -> None:
        states = []
        for count in (1, 2, 3):
            [write] = decided(run(stage(*(failed(n, cause) for n in range(1, count + 1)), max_attempts=3))).writes
            assert isinstance(write, SetStage)
            states.append(write.state)
        assert states == [StageState.PENDING, StageState.PENDING, StageState.FAILED]

    def test_what_is_free_is_quarantined_once_it_came_often_in_the_same_place(self) -> None:
        often = [failed(n, Cause.INFRASTRUCTURE) for n in range(1, POISON_AFTER + 1)]
        [again] = decided(run(stage(*often[:-1], max_attempts=1))).writes
        [given_up] = decided(run(stage(*often, max_attempts=1))).writes
        assert isinstance(again, SetStage)
        assert isinstance(given_up, SetStage)
        assert (again.state, given_up.state) == (StageState.PENDING, StageState.FAILED)
        assert f"Quarantined: {POISON_AFTER} attempts in a row" in (given_up.reason or "")

    def test_a_process_that_says_by_itself_that_it_was_preempted_waits_ever_longer_and_is_quarantined(self) -> None:
        waits, last = [], None
        for count in range(1, POISON_AFTER + 1):
            past = [failed(n, Cause.PREEMPTION) for n in range(1, count + 1)]
            [last] = decided(run(stage(*past, max_attempts=1))).writes
            assert isinstance(last, SetStage)
            waits += [last.not_before - (NOW - 1)] if last.not_before is not None else []
        assert last is not None
        assert last.state is StageState.FAILED
        assert len(waits) == POISON_AFTER - 1
        assert all(wait >= 1.0 for wait in waits)
        assert waits[8] > 100 * waits[0]

    def test_what_the_platform_preempted_goes_on_at_once_however_often(self) -> None:
        past = [failed(n, Cause.PREEMPTION, stop_cause=Cause.PREEMPTION) for n in range(1, 3 * POISON_AFTER)]
        [again] = decided(run(stage(*past, max_attempts=1))).writes
        assert again == SetStage("work", StageState.PENDING, "preemption.", NOW - 1)
        assert trailing(stage(*past, failed(99, Cause.INFRASTRUCTURE)), Cause.INFRASTRUCTURE) == 1

    def test_free_causes_that_take_turns_are_no_way_round_the_quarantine(self) -> None:
        free = [c for c in Cause if RULES[c].free]
        past = [failed(n, free[n % len(free)]) for n in range(1, POISON_AFTER + 1)]
        [given_up] = decided(run(stage(*past, max_attempts=1))).writes
        assert isinstance(given_up, SetStage)
        assert given_up.state is StageState.FAILED

    def test_attempts_of_different_length_that_never_pass_the_furthest_are_no_progress(self) -> None:
        reached = [50, 30, 10, 40, 20]
        past = [
            failed(n, Cause.INFRASTRUCTURE, beats={0: RankBeat(step, "train", NOW)}) for n, step in enumerate(reached, 1)
        ]  # fmt: skip
        assert trailing(stage(*past), Cause.INFRASTRUCTURE) == len(reached)

    def test_progress_between_failures_begins_the_count_anew(self) -> None:
        further = [
            failed(n, Cause.INFRASTRUCTURE, beats={0: RankBeat(10 * n, "train", NOW)}) for n in range(1, POISON_AFTER + 5)
        ]  # fmt: skip
        assert trailing(stage(*further), Cause.INFRASTRUCTURE) == 1
        assert trailing(stage(*further[:3], failed(9, Cause.UNKNOWN)), Cause.INFRASTRUCTURE) == 0

    def test_a_stage_waits_for_its_date_and_then_starts(self) -> None:
        waiting = run(stage(failed(1, Cause.UNKNOWN), state=StageState.PENDING, not_before=NOW + 5))
        early, due = decided(waiting), decided(waiting, now=NOW + 5)
        assert (early.is_quiet, early.wake_at) == (True, NOW + 5)
        assert due.writes == (CreateAttempt("work", 2, 2), SetStage("work", StageState.RUNNING))
        assert due.after == (CreateWorkload(f"{RUN}-work-2"),)

    @pytest.mark.parametrize(
        ("past", "back"),
        [
            ([], 0),
            ([(Cause.DIVERGENCE, None, 35)], 1),
            (
                [(Cause.DIVERGENCE, None, 35), (Cause.INFRASTRUCTURE, 20, 28)],
                0,
            ),  # it goes on from its own, not back again
            ([(Cause.DIVERGENCE, None, 35), (Cause.NODE, None, None)], 1),  # that one never began
            ([(Cause.DIVERGENCE, None, 35), (Cause.DIVERGENCE, 20, 36)], 2),
            ([(Cause.DIVERGENCE, None, 35), (Cause.INFRASTRUCTURE, 20, 28), (Cause.DIVERGENCE, 26, 33)], 2),
            ([(Cause.DIVERGENCE, None, 35), (Cause.DIVERGENCE, 20, 500)], 1),  # the first was left behind
            ([(Cause.DIVERGENCE, None, 35), (Cause.DIVERGENCE, 20, 500), (Cause.DIVERGENCE, 480, 501)], 2),
        ],
    )
    def test_it_goes_back_for_divergences_in_a_row_and_only_right_after_one(
        self, past: list[tuple[Cause, int | None, int | None]], back: int
    ) -> None:
        attempts = [
            failed(n, cause, resume_step=resumed, beats={} if at is None else {0: RankBeat(at, "train", NOW)})
            for n, (cause, resumed, at) in enumerate(past, 1)
        ]
        [create, _] = decided(run(stage(*attempts, state=StageState.PENDING))).writes
        assert isinstance(create, CreateAttempt)
        assert create.checkpoints_back == back

    def test_the_next_attempt_avoids_lost_nodes_and_goes_back_behind_divergences(self) -> None:
        past = [failed(1, Cause.NODE, node="b"), failed(2, Cause.DIVERGENCE, node="c"), failed(3, Cause.NODE, node="a")]
        [create, _] = decided(run(stage(*past, state=StageState.PENDING))).writes
        assert create == CreateAttempt("work", 4, 4, checkpoints_back=1, excluded_nodes=("a", "b"))

    def test_infrastructure_excludes_its_node_too_but_never_more_than_the_newest_few(self) -> None:
        past = [failed(n, Cause.INFRASTRUCTURE, node=f"n{n:02}") for n in range(1, 16)]
        [create, _] = decided(run(stage(*past, state=StageState.PENDING))).writes
        assert isinstance(create, CreateAttempt)
        assert create.excluded_nodes == tuple(f"n{n:02}" for n in range(16 - MOST_EXCLUDED_NODES, 16))

    def test_numbers_go_on_from_before_a_persons_retry(self) -> None:
        view = RunView(
            RUN, RunState.PENDING, Desired.RUN, 9, (stage(state=StageState.PENDING, attempts_before=4),), last_epoch=11
        )
        assert decided(view).writes[0] == CreateAttempt("work", 5, 12)


class TestLeave:
    @pytest.mark.parametrize("cause", [Cause.PREEMPTION, Cause.NODE])
    @pytest.mark.parametrize("phase", [Phase.PENDING, Phase.RUNNING])
    def test_an_attempt_on_a_node_that_is_wanted_or_sick_is_asked_to_save(self, cause: Cause, phase: Phase) -> None:
        leave = Leave(cause, "Node b is wanted.", "b")
        decision = decided(run(stage(attempt())), Seen(phase, node="a", leave=leave))
        [write] = decision.writes
        assert isinstance(write, SetAttempt)
        assert (write.state, write.stop_cause, write.node) == (AttemptState.STOPPING, cause, "b")
        assert decision.after == (StopWorkload(f"{RUN}-work-1", GRACE_SECONDS),)

    def test_it_is_asked_once_and_a_cancellation_goes_before(self) -> None:
        seen = Seen(Phase.RUNNING, leave=Leave(Cause.NODE, "Node b is sick.", "b"))
        asked = attempt(state=AttemptState.STOPPING, stop_requested_at=NOW - 1, stop_cause=Cause.NODE, node="b")
        assert decided(run(stage(asked)), seen).is_quiet
        [write] = decided(run(stage(attempt()), desired=Desired.CANCEL), seen).writes
        assert isinstance(write, SetAttempt)
        assert write.stop_cause is Cause.CANCELLED

    def test_the_sick_node_is_avoided_whichever_node_told_the_end(self) -> None:
        asked = attempt(state=AttemptState.STOPPING, stop_requested_at=NOW - 1, stop_cause=Cause.NODE, node="b")
        [write] = decided(run(stage(asked)), Seen(Phase.EXITED, 143, node="a")).writes
        assert isinstance(write, SetAttempt)
        assert (write.cause, write.node) == (Cause.NODE, None), "None leaves the node as it is"
        assert RULES[Cause.NODE].excludes_node


class TestHang:
    def test_deadlines_fit_themselves_with_a_floor_unless_the_recipe_sets_one(self) -> None:
        measured = stage(phase_seconds={"train": 30.0, "quick": 0.01})
        assert [deadline_seconds(measured, p) for p in ("train", "quick", "setup")] == [300.0, 60.0, 1800.0]
        assert deadline_seconds(stage(hang_seconds=7.0, phase_seconds={"train": 30.0}), "train") == 7.0

    def test_the_rank_that_is_furthest_behind_is_named(self) -> None:
        beats = {0: RankBeat(9, "train", NOW - 70), 1: RankBeat(8, "train", NOW - 90), 2: RankBeat(9, "train", NOW - 5)}
        found = find_stall(
            stage(world_size=3, phase_seconds={"train": 1.0}), attempt(beats=beats), Seen(Phase.RUNNING), NOW
        )
        assert found is not None
        assert found.rank == 1
        assert "made no progress for 90 s in phase 'train' at step 8" in found.sentence

    def test_a_rank_that_never_reported_counts_from_the_start(self) -> None:
        old = attempt(started_at=NOW - 1801, beats={0: RankBeat(9, "train", NOW)})
        found = find_stall(stage(world_size=2, phase_seconds={"train": 1.0}), old, Seen(Phase.RUNNING), NOW)
        assert found is not None
        assert found.rank == 1

    def test_a_rank_that_has_ended_is_not_stalled(self) -> None:
        beats = {0: RankBeat(9, "train", NOW - 1), 1: RankBeat(9, "train", NOW - 1e6)}
        known = attempt(beats=beats, started_at=NOW - 1e7)
        two = stage(world_size=2, phase_seconds={"train": 1.0})
        assert find_stall(two, known, Seen(Phase.RUNNING), NOW) is not None
        assert find_stall(two, known, Seen(Phase.RUNNING, ended_ranks=frozenset({1})), NOW) is None
        told = replace(known, beats=beats | {1: RankBeat(9, PHASE_ENDED, NOW - 1e6)})
        assert find_stall(two, told, Seen(Phase.RUNNING, heard_since=0.0), NOW) is None, "its launcher has said so"

    def test_while_the_api_is_away_silence_over_http_is_no_hang_and_afterwards_the_deadline_begins_anew(self) -> None:
        heard = attempt(beats={0: RankBeat(9, "train", NOW - 1000)}, started_at=NOW - 2000)
        silent = attempt(started_at=NOW - 2000)
        fixed = stage(hang_seconds=60.0)
        for known in (heard, silent):
            stalls = [
                find_stall(fixed, known, Seen(Phase.RUNNING, heard_since=since), NOW) is not None
                for since in (None, NOW - 59, NOW - 61, 0.0)
            ]
            assert stalls == [False, False, True, True]
        # A rank that the executor hears by itself is held to its deadline all the same.
        seen = Seen(Phase.RUNNING, beats={0: RankBeat(9, "train", NOW - 61)}, heard_since=None)
        assert find_stall(fixed, heard, seen, NOW) is not None

    def test_a_command_that_never_reports_is_held_to_the_recipes_deadline_only(self) -> None:
        silent = attempt(started_at=NOW - 1e6)
        assert find_stall(stage(), silent, Seen(Phase.RUNNING), NOW) is None
        assert find_stall(stage(hang_seconds=60.0), silent, Seen(Phase.RUNNING), NOW) is not None

    def test_the_newer_of_file_and_database_counts_for_each_rank(self) -> None:
        known = attempt(beats={0: RankBeat(5, "train", NOW - 9), 1: RankBeat(7, "train", NOW - 1)})
        seen = Seen(Phase.RUNNING, beats={0: RankBeat(6, "train", NOW - 2), 1: RankBeat(6, "train", NOW - 5)})
        assert {rank: beat.step for rank, beat in newest_beats(known, seen).items()} == {0: 6, 1: 7}

    @pytest.mark.parametrize(
        ("stop_cause", "code", "written"), [(None, 1, 3), (Cause.HANG, 143, None), (Cause.CANCELLED, 143, None)]
    )
    def test_the_rank_that_failed_is_written_with_the_end_unless_the_stop_has_told_or_nothing_failed(
        self, stop_cause: Cause | None, code: int, written: int | None
    ) -> None:
        view = run(stage(attempt(stop_cause=stop_cause, stop_requested_at=NOW - 1 if stop_cause else None)))
        [write, *_] = decided(view, Seen(Phase.EXITED, code, failed_rank=3)).writes
        assert isinstance(write, SetAttempt)
        assert write.failed_rank == written

    def test_stacks_are_asked_for_once_then_the_attempt_is_stopped_with_or_without_them(self) -> None:
        def stalled(asked_at: float | None, *, ready: bool) -> Decision:
            beats = {0: RankBeat(1, "train", NOW - 61), 1: RankBeat(1, "train", NOW - 62)}
            view = run(
                stage(attempt(stacks_requested_at=asked_at, beats=beats), phase_seconds={"train": 1.0}, world_size=2)
            )
            return decided(view, Seen(Phase.RUNNING, stacks_ready=ready))

        assert stalled(None, ready=False).after == (DumpStacks(f"{RUN}-work-1", 1),)
        assert stalled(NOW - 1, ready=False).is_quiet
        for stopped in (stalled(NOW - 1, ready=True), stalled(NOW - STACKS_SECONDS, ready=False)):
            [write] = stopped.writes
            assert isinstance(write, SetAttempt)
            assert (write.state, write.stop_cause, write.failed_rank) == (AttemptState.STOPPING, Cause.HANG, 1)
            assert stopped.after == (StopWorkload(f"{RUN}-work-1", STACKS_SECONDS),)


class TestLife:
    def test_what_cannot_be_seen_is_waited_for(self) -> None:
        assert decided(run(stage(attempt()))) == Decision(wake_at=NOW + OBSERVE_SECONDS)
        assert decided(run(stage(attempt(state=AttemptState.SUCCEEDED)))).wake_at == NOW + OBSERVE_SECONDS

    @pytest.mark.parametrize(
        ("fields", "seen", "seconds"),
        [
            ({}, Seen(Phase.RUNNING), OBSERVE_SECONDS),
            ({"state": AttemptState.STARTING}, Seen(Phase.PENDING, rings=True), RUNG_SILENT_SECONDS),
            ({}, Seen(Phase.RUNNING, rings=True), RUNG_SILENT_SECONDS),
            ({"beats": {0: RankBeat(1, "train", NOW)}}, Seen(Phase.RUNNING, rings=True), RUNG_SECONDS),
            ({}, Seen(Phase.UNKNOWN, rings=True), BLIND_SECONDS),
            ({"reason": "It is out of sight: x."}, Seen(Phase.UNKNOWN, rings=True), RUNG_SILENT_SECONDS),
            ({"stop_requested_at": NOW}, Seen(Phase.RUNNING, rings=True), RUNG_SECONDS),
            ({"stacks_requested_at": NOW}, Seen(Phase.RUNNING, rings=True), OBSERVE_SECONDS),
        ],
    )
    def test_where_the_executor_rings_only_what_it_cannot_see_is_looked_at_often(
        self, fields: dict[str, Any], seen: Seen, seconds: float
    ) -> None:
        assert decided(run(stage(attempt(**fields))), seen).wake_at == NOW + seconds

    def test_a_recipes_own_deadline_is_looked_at_often_although_no_rank_has_spoken(self) -> None:
        seen = Seen(Phase.RUNNING, rings=True)
        assert decided(run(stage(attempt(), hang_seconds=600.0)), seen).wake_at == NOW + RUNG_SECONDS

    def test_an_intent_without_a_workload_is_carried_out_but_never_a_started_one(self) -> None:
        made = decided(run(stage(attempt(state=AttemptState.CREATED))), Seen(Phase.GONE))
        assert (made.writes, made.after) == ((), (CreateWorkload(f"{RUN}-work-1"),))
        lost = decided(run(stage(attempt())), Seen(Phase.GONE))
        assert lost.before == (CollectArtifacts(f"{RUN}-work-1"),)
        assert lost.after == ()

    @pytest.mark.parametrize("desired", [Desired.CANCEL, Desired.INTERRUPT])
    def test_an_intent_that_nobody_wants_any_more_ends_without_a_workload_and_nobody_makes_it_late(
        self, desired: Desired
    ) -> None:
        cancelled = desired is Desired.CANCEL
        cause = Cause.CANCELLED if cancelled else Cause.PREEMPTION
        [write] = decided(run(stage(attempt(state=AttemptState.CREATED)), desired=desired), Seen(Phase.GONE)).writes
        assert isinstance(write, SetAttempt)
        assert (write.state, write.stop_cause) == (AttemptState.STOPPING, cause)
        asked = attempt(state=AttemptState.STOPPING, stop_cause=cause, stop_requested_at=NOW, started_at=None)
        end = decided(run(stage(asked), desired=Desired.RUN), Seen(Phase.GONE))
        assert end.before[0] == RemoveWorkload(f"{RUN}-work-1")
        [write] = end.writes
        assert isinstance(write, SetAttempt)
        assert (write.state, write.cause) == (
            AttemptState.CANCELLED if cancelled else AttemptState.INTERRUPTED,
            cause,
        )
        assert write.reason == "Stopped before it started."

    def test_what_was_never_made_is_removed_before_it_is_forgotten_so_that_nobody_makes_it_late(self) -> None:
        left = decided(run(stage(attempt(state=AttemptState.INTERRUPTED, cause=Cause.PREEMPTION))), Seen(Phase.GONE))
        assert RemoveWorkload(f"{RUN}-work-1") in left.before
        assert SetAttempt(f"{RUN}-work-1", AttemptState.INTERRUPTED, workload_removed=True) in left.writes

    def test_a_lost_stop_is_repeated_and_at_last_the_process_is_killed(self) -> None:
        def asked(seconds_ago: float) -> tuple[object, ...]:
            stopping = attempt(state=AttemptState.STOPPING, stop_requested_at=NOW - seconds_ago)
            return decided(run(stage(stopping)), Seen(Phase.RUNNING)).after

        assert asked(STOP_PATIENCE_SECONDS - 1) == ()
        again = StopWorkload(f"{RUN}-work-1", GRACE_SECONDS - STOP_PATIENCE_SECONDS)
        assert asked(STOP_PATIENCE_SECONDS) == (again,)
        assert asked(GRACE_SECONDS + STOP_PATIENCE_SECONDS) == (StopWorkload(f"{RUN}-work-1", 0.0),)

    def test_a_success_counts_even_if_the_end_was_asked_for_meanwhile(self) -> None:
        done = attempt(state=AttemptState.SUCCEEDED, workload_removed=True)
        assert decided(run(stage(done), desired=Desired.CANCEL)).writes == (SetStage("work", StageState.SUCCEEDED),)

    def test_an_interrupted_run_says_so_once_nothing_lives(self) -> None:
        waiting = run(stage(state=StageState.PENDING), desired=Desired.INTERRUPT)
        [write] = decided(waiting).writes
        assert isinstance(write, SetRun)
        assert write.state is RunState.INTERRUPTED
        told = RunView(RUN, RunState.INTERRUPTED, Desired.INTERRUPT, 3, waiting.stages)
        assert decided(told).is_quiet

    @pytest.mark.parametrize(
        ("states", "desired", "end", "reason"),
        [
            ((StageState.SUCCEEDED,) * 2, Desired.RUN, RunState.SUCCEEDED, None),
            ((StageState.SUCCEEDED,) * 2, Desired.CANCEL, RunState.SUCCEEDED, None),
            ((StageState.SUCCEEDED, StageState.CANCELLED), Desired.CANCEL, RunState.CANCELLED, "Cancelled."),
            ((StageState.FAILED, StageState.SKIPPED), Desired.RUN, RunState.FAILED, "Stage 's0' failed: it gave no reason"),
            ((StageState.SUCCEEDED, StageState.SKIPPED), Desired.RUN, RunState.FAILED, "Stage 's1' was not started."),
        ],
    )  # fmt: skip
    def test_the_run_ends_as_its_stages_did(
        self, states: tuple[StageState, ...], desired: Desired, end: RunState, reason: str | None
    ) -> None:
        stages = [StageView(f"s{n}", state) for n, state in enumerate(states)]
        assert decided(run(*stages, desired=desired)).writes == (SetRun(end, reason),)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[RunView, Mapping[str, Seen]]:
    """Any run that the store could hold: earlier attempts of a stage have ended, the last may live."""
    stages, seen, epoch = [], {}, 0
    for index in range(draw(st.integers(1, 3))):
        attempts = []
        for number in range(1, draw(st.integers(0, 4)) + 1):
            epoch += 1
            ended = [s for s in AttemptState if s.is_terminal]
            state = draw(st.sampled_from(list(AttemptState)))
            if attempts and not attempts[-1].state.is_terminal:
                break
            made = AttemptView(
                f"{RUN}-s{index}-{number}", number, epoch, state, NOW - 500, cause=draw(st.sampled_from([None, *Cause])) if state in ended else None,
                started_at=draw(st.none() | st.just(NOW - 400)), stop_requested_at=draw(st.none() | st.floats(NOW - 300, NOW)),
                stop_cause=draw(st.sampled_from([None, Cause.HANG, Cause.CANCELLED, Cause.PREEMPTION])), workload_removed=state in ended and draw(st.booleans()),
                beats=draw(st.dictionaries(st.integers(0, 1), st.builds(RankBeat, st.integers(0, 99), st.just("train"), st.floats(0, NOW)), max_size=2)),
            )  # fmt: skip
            attempts.append(made)
            seen[made.id] = draw(
                st.builds(
                    Seen, st.sampled_from(list(Phase)), st.sampled_from([None, 0, 1, 64, 75, 137, 143]), out_of_memory=st.booleans(), node_lost=st.booleans()
                )
            )  # fmt: skip
        # A stage ends with its last attempt, in one transaction.
        lives = bool(attempts) and not attempts[-1].state.is_terminal
        stage_states = [s for s in StageState if not (lives and s.is_terminal)]
        stages.append(
            StageView(
                f"s{index}", draw(st.sampled_from(stage_states)), tuple(f"s{i}" for i in range(index) if draw(st.booleans())),
                gate=draw(st.sampled_from([None, "s0.score <= 2", "nonsense"])), not_before=draw(st.none() | st.floats(NOW - 9, NOW + 9)),
                attempts=tuple(attempts), hang_seconds=draw(st.none() | st.just(60.0)), world_size=2,
            )
        )  # fmt: skip
    desired, state = draw(st.sampled_from(list(Desired))), draw(st.sampled_from(list(RunState)))
    return RunView(RUN, state, desired, 1, tuple(stages), last_epoch=epoch), seen


class TestEveryDecision:
    @given(worlds())
    def test_deciding_again_is_deciding_the_same(self, world: tuple[RunView, Mapping[str, Seen]]) -> None:
        assert decide(*world, NOW) == decide(*world, NOW)

    @given(worlds())
    def test_a_new_attempt_comes_only_where_none_lives_is_wanted_and_grows_the_epoch(
        self, world: tuple[RunView, Mapping[str, Seen]]
    ) -> None:
        view, seen = world
        made = [w for w in decide(view, seen, NOW).writes if isinstance(w, CreateAttempt)]
        by_id = {s.id: s for s in view.stages}
        assert not made or view.desired is Desired.RUN
        assert all(live_attempt(by_id[w.stage_id]) is None for w in made)
        assert all(not by_id[w.stage_id].state.is_terminal for w in made)
        assert [w.epoch for w in made] == [view.last_epoch + n for n in range(1, len(made) + 1)]

    @given(worlds())
    def test_an_attempt_is_ended_only_when_its_workload_is_known_to_be_no_more(
        self, world: tuple[RunView, Mapping[str, Seen]]
    ) -> None:
        view, seen = world
        living = {a.id for s in view.stages if (a := live_attempt(s)) is not None}
        for write in decide(view, seen, NOW).writes:
            if isinstance(write, SetAttempt) and write.attempt_id in living and write.state.is_terminal:
                assert seen[write.attempt_id].phase in (Phase.EXITED, Phase.GONE)

    @given(worlds())
    def test_what_has_ended_stays_so_and_nothing_is_written_twice(
        self, world: tuple[RunView, Mapping[str, Seen]]
    ) -> None:
        view, seen = world
        writes = decide(view, seen, NOW).writes
        states = {s.id: s.state for s in view.stages}
        attempts = {a.id: a.state for s in view.stages for a in s.attempts}
        assert all(not states[w.stage_id].is_terminal for w in writes if isinstance(w, SetStage))
        assert not view.state.is_terminal or not any(isinstance(w, SetRun) for w in writes)
        for write in writes:
            if isinstance(write, SetAttempt) and attempts[write.attempt_id].is_terminal:
                assert write == SetAttempt(write.attempt_id, attempts[write.attempt_id], workload_removed=True)
        names = [getattr(w, "attempt_id", None) or getattr(w, "stage_id", "run") for w in writes if not isinstance(w, CreateAttempt)]  # fmt: skip
        assert len(names) == len(set(names))

    @given(worlds())
    def test_a_run_that_is_not_over_is_looked_at_again_or_waits_for_a_person(
        self, world: tuple[RunView, Mapping[str, Seen]]
    ) -> None:
        view, seen = world
        assume(not any(s.state.is_terminal and live_attempt(s) for s in view.stages))  # no store holds that
        decision = decide(view, seen, NOW)
        over = view.state.is_terminal or (view.state is RunState.INTERRUPTED and view.desired is Desired.INTERRUPT)
        stuck = decision.is_quiet and decision.wake_at is None
        waits = all(s.state.is_terminal or s.state is StageState.WAITING or live_attempt(s) for s in view.stages)
        assert over or not stuck or waits, (view, seen, decision)
