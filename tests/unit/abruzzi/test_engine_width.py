"""An elastic stage: when an attempt makes way for one with fewer ranks, or with more again, and how many the next one has."""

from __future__ import annotations

from dataclasses import replace

import pytest

from abruzzi.contracts.reason import Reason
from abruzzi.contracts.states import AttemptState, Cause, ExitCode, RunState, StageState
from abruzzi.engine.actions import CreateAttempt, SetAttempt, SetStage, StopWorkload
from abruzzi.engine.classify import classify
from abruzzi.engine.decide import decide
from abruzzi.engine.view import AttemptView, Desired, Elastic, Phase, RankBeat, RunView, Seen, StageView
from abruzzi.engine.width import find_resize, next_width, tried_in_vain

NOW = 10_000.0
RUN = "run0000000"
ELASTIC = Elastic((8, 4, 2), narrow_after=300.0, widen_after=600.0)
FULL_POOL = Seen(Phase.PENDING, reason="No node takes pod w-3.", waits_for=Reason.WAITS_FOR_NODES, room=5)


def attempt(number: int = 1, state: AttemptState = AttemptState.STARTING, **fields: object) -> AttemptView:
    values = {"created_at": NOW - 301, **fields}
    return AttemptView(f"{RUN}-train-{number}", number, number, state, **values)  # type: ignore[arg-type]


def narrow(number: int = 2, **fields: object) -> AttemptView:
    """Runs on 4 of 8 ranks, since longer than it must, from step 10 on."""
    beats = {0: RankBeat(25, "train", NOW - 1)}
    values = {"world_size": 4, "started_at": NOW - 601, "beats": beats, "resume_step": 10, **fields}
    return attempt(number, AttemptState.RUNNING, **values)


def stage(*attempts: AttemptView, **fields: object) -> StageView:
    values = {"world_size": 8, "elastic": ELASTIC, **fields}
    return StageView("train", StageState.RUNNING, attempts=attempts, **values)  # type: ignore[arg-type]


def decided(found: StageView, seen: Seen) -> tuple[object, ...]:
    view = RunView(RUN, RunState.RUNNING, Desired.RUN, 3, (found,), last_epoch=len(found.attempts))
    made = decide(view, {found.attempts[-1].id: seen}, NOW)
    return (*made.writes, *made.after)


class TestFewer:
    def test_an_attempt_that_found_no_place_for_so_long_makes_way_for_as_many_ranks_as_have_one(self) -> None:
        waiting = attempt()
        [written, stopped] = decided(stage(waiting), FULL_POOL)
        assert isinstance(written, SetAttempt)
        assert isinstance(stopped, StopWorkload)
        assert (written.state, written.stop_cause, written.resize_to) == (AttemptState.STOPPING, Cause.RESIZE, 4)
        said = "8 ranks found no place for 301 s: it goes on with 4 of 8. No node takes pod w-3."
        assert written.reason == said

    @pytest.mark.parametrize(
        ("seen", "created_at", "ranks"),
        [
            (FULL_POOL, NOW - 299, None),  # not so long yet
            (replace(FULL_POOL, room=3), NOW - 301, 2),
            (replace(FULL_POOL, room=1), NOW - 301, None),  # the fewest would wait, too
            (replace(FULL_POOL, room=8), NOW - 301, 4),  # the estimate is wrong: a quota, other people's pods
            (replace(FULL_POOL, room=None), NOW - 301, None),  # nobody can tell
            (replace(FULL_POOL, waits_for=Reason.WAITS_IN_QUEUE), NOW - 301, None),
            (replace(FULL_POOL, waits_for=Reason.WAITS_FOR_IMAGE), NOW - 301, None),
            (replace(FULL_POOL, waits_for=None), NOW - 301, None),
        ],
    )
    def test_only_what_fewer_ranks_would_help_with_and_no_fewer_than_it_may(
        self, seen: Seen, created_at: float, ranks: int | None
    ) -> None:
        waiting = attempt(created_at=created_at)
        found = find_resize(stage(waiting), waiting, seen, NOW)
        assert (found.ranks if found else None) == ranks

    def test_a_stage_that_is_not_elastic_waits(self) -> None:
        waiting = attempt()
        assert find_resize(stage(waiting, elastic=None), waiting, FULL_POOL, NOW) is None


class TestMore:
    @pytest.mark.parametrize(("room", "ranks"), [(8, 8), (9, 8), (7, None), (4, None), (None, None)])
    def test_one_that_has_got_on_saves_and_goes_on_with_as_many_ranks_as_have_room_again(
        self, room: int | None, ranks: int | None
    ) -> None:
        running = narrow()
        found = find_resize(stage(attempt(), running), running, Seen(Phase.RUNNING, room=room), NOW)
        assert (found.ranks if found else None) == ranks
        if found:
            said = "There is room for 8 ranks again: it saves, and goes on with 8 instead of 4."
            assert found.sentence == said

    @pytest.mark.parametrize("fields", [{"started_at": NOW - 599}, {"resume_step": 25}, {"beats": {}}])
    def test_not_before_its_time_and_never_without_a_step_to_show(self, fields: dict[str, object]) -> None:
        running = narrow(**fields)
        assert find_resize(stage(attempt(), running), running, Seen(Phase.RUNNING, room=8), NOW) is None

    def test_room_that_others_took_meanwhile_is_tried_again_half_as_often(self) -> None:
        began = narrow(1)
        vain = attempt(2, AttemptState.INTERRUPTED, cause=Cause.RESIZE, started_at=NOW - 700, resize_to=4)
        tried = stage(began, vain, narrow(3))
        assert tried_in_vain(tried) == 1
        assert find_resize(tried, narrow(3), Seen(Phase.RUNNING, room=8), NOW) is None
        assert find_resize(tried, narrow(3, started_at=NOW - 1201), Seen(Phase.RUNNING, room=8), NOW) is not None
        assert tried_in_vain(stage(began, replace(vain, resize_to=None), narrow(3))) == 0


class TestWhatFollows:
    @pytest.mark.parametrize("exit_code", [ExitCode.PREEMPTED, ExitCode.KILLED, None])
    def test_the_end_is_free_and_the_next_attempt_follows_at_once_with_the_width_that_was_chosen(
        self, exit_code: int | None
    ) -> None:
        stopping = replace(
            narrow(), state=AttemptState.STOPPING, stop_cause=Cause.RESIZE, stop_requested_at=NOW - 5, resize_to=8
        )
        outcome = classify(stopping, Seen(Phase.EXITED, exit_code))
        assert (outcome.state, outcome.cause) == (AttemptState.INTERRUPTED, Cause.RESIZE)
        ended = replace(
            stopping, state=outcome.state, cause=outcome.cause, ended_at=NOW - 1, workload_removed=True, reason="Room."
        )
        again = stage(ended, max_attempts=1)
        assert decided(again, Seen(Phase.GONE)) == (SetStage("train", StageState.PENDING, "Room.", NOW - 1),)
        assert next_width(again) is None, "all of its ranks"

    def test_a_narrow_attempt_that_dies_is_followed_by_one_as_narrow(self) -> None:
        dead = replace(narrow(), state=AttemptState.FAILED, cause=Cause.NODE, ended_at=NOW - 1, workload_removed=True)
        pending = replace(stage(attempt(1, AttemptState.FAILED, workload_removed=True), dead), state=StageState.PENDING)
        [made] = [write for write in decided(pending, Seen(Phase.GONE)) if isinstance(write, CreateAttempt)]
        assert made.world_size == 4

    def test_its_own_fault_stays_its_own(self) -> None:
        stopping = replace(narrow(), stop_cause=Cause.RESIZE, resize_to=8)
        assert classify(stopping, Seen(Phase.EXITED, ExitCode.BAD_DATA)).cause is Cause.BAD_DATA
