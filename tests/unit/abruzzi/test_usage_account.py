"""Where an attempt's time went: every cause by an example, and the sum by any history at all."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abruzzi.contracts.states import AttemptState, Cause
from abruzzi.contracts.usage import HELD, By, Spent
from abruzzi.usage.account import Account, AttemptFacts, RankFacts, account, cause_of_phase, days
from abruzzi.usage.service import Entry, group

START = datetime(2026, 11, 26, 12, tzinfo=UTC)
DAY = "2026-11-26"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def rank(heartbeat: float, phase: str = "train", **spent: float) -> RankFacts:
    return RankFacts({DAY: spent}, phase, at(heartbeat))


def attempt(*ranks: RankFacts, **fields: object) -> AttemptFacts:
    """Created at 0, held from 10, running from 20, ended at 100."""
    values = {
        "created_at": at(0), "held_at": at(10), "started_at": at(20), "ended_at": at(100), "state": AttemptState.SUCCEEDED,
        "world_size": max(1, len(ranks)), "ranks": ranks, **fields,
    }  # fmt: skip
    return AttemptFacts(**values)  # type: ignore[arg-type]


def failed(cause: Cause, *ranks: RankFacts, **fields: object) -> AttemptFacts:
    return attempt(*ranks, state=AttemptState.FAILED, cause=cause, **fields)


def seconds(facts: AttemptFacts, now: float = 1000) -> dict[Spent, float]:
    found: Counter[Spent] = Counter()
    for (_, cause), milliseconds in account(facts, at(now)).items():
        found[cause] += milliseconds
    return {cause: value / 1000 for cause, value in found.items() if value}


def test_from_the_queue_to_the_last_save_every_second_has_its_cause() -> None:
    told = rank(90, "done", setup=5, load=3, train=40, save=7, evaluate=5)  # first heard at 30
    assert seconds(attempt(told)) == {
        Spent.QUEUE: 10, Spent.START_UP: 20 + 8, Spent.TRAIN: 45, Spent.CHECKPOINT: 7, Spent.IDLE: 10,
    }  # fmt: skip


def test_a_hang_counts_from_the_last_progress_to_its_detection_and_its_end_is_idle() -> None:
    hung = failed(Cause.HANG, rank(50, train=20), detected_at=at(80))
    assert seconds(hung) == {Spent.QUEUE: 10, Spent.START_UP: 20, Spent.TRAIN: 20, Spent.HANG: 30, Spent.IDLE: 20}


def test_work_after_the_checkpoint_that_was_resumed_is_lost_and_its_start_up_is_not() -> None:
    died = failed(Cause.UNKNOWN, rank(95, train=60, save=5), kept_until=at(60))
    assert seconds(died) == {
        Spent.QUEUE: 10, Spent.START_UP: 20, Spent.TRAIN: 70 - 5 - 40, Spent.CHECKPOINT: 5, Spent.LOST_WORK: 40,
    }  # fmt: skip
    from_the_beginning = failed(Cause.UNKNOWN, rank(95, train=60, save=5), kept_until=at(0))
    assert seconds(from_the_beginning) == {Spent.QUEUE: 10, Spent.START_UP: 20, Spent.LOST_WORK: 70}


def test_nothing_is_lost_until_somebody_has_resumed_behind_it() -> None:
    assert Spent.LOST_WORK not in seconds(failed(Cause.UNKNOWN, rank(95, train=60)))
    assert Spent.LOST_WORK not in seconds(attempt(rank(95, train=60), kept_until=at(0)))


def test_a_hang_is_no_lost_work_and_what_came_before_its_checkpoint_is_kept() -> None:
    hung = failed(Cause.HANG, rank(50, train=20), detected_at=at(80), kept_until=at(45))
    assert seconds(hung) == {
        Spent.QUEUE: 10, Spent.START_UP: 20, Spent.TRAIN: 15, Spent.LOST_WORK: 5, Spent.HANG: 30, Spent.IDLE: 20,
    }  # fmt: skip


def test_a_node_that_is_gone_is_idle_from_its_last_word() -> None:
    gone = failed(Cause.NODE, rank(60, train=30))
    assert seconds(gone) == {Spent.QUEUE: 10, Spent.START_UP: 20, Spent.TRAIN: 30, Spent.IDLE: 40}


def test_an_image_without_the_sdk_works_while_it_runs_and_loses_all_when_it_is_tried_again() -> None:
    assert seconds(attempt()) == {Spent.QUEUE: 10, Spent.START_UP: 10, Spent.TRAIN: 80}
    again = failed(Cause.NODE, kept_until=at(0))
    assert seconds(again) == {Spent.QUEUE: 10, Spent.START_UP: 10, Spent.LOST_WORK: 80}


def test_a_rank_that_never_came_up_beside_others_is_starting() -> None:
    assert seconds(attempt(rank(100, train=70), world_size=2)) == {
        Spent.QUEUE: 20,
        Spent.START_UP: 20 + 90,
        Spent.TRAIN: 70,
    }


def test_what_runs_counts_up_to_now_and_what_waits_holds_nothing() -> None:
    running = attempt(rank(50, train=20), state=AttemptState.RUNNING, ended_at=None)
    assert seconds(running, now=70) == {Spent.QUEUE: 10, Spent.START_UP: 20, Spent.TRAIN: 40}
    waiting = attempt(state=AttemptState.STARTING, ended_at=None, held_at=None, started_at=None, world_size=8)
    assert seconds(waiting, now=70) == {Spent.QUEUE: 8 * 70}


def test_each_day_has_its_own_share() -> None:
    late = datetime(2026, 11, 26, 23, 59, 50, tzinfo=UTC)
    told = RankFacts({"2026-11-26": {"train": 10}, "2026-11-27": {"train": 5}}, "save", late + timedelta(seconds=15))
    facts = AttemptFacts(late, late, late, late + timedelta(seconds=20), AttemptState.SUCCEEDED, ranks=(told,))
    assert +account(facts, at(0)) == Counter(
        {(date(2026, 11, 26), Spent.TRAIN): 10_000, (date(2026, 11, 27), Spent.TRAIN): 5_000, (date(2026, 11, 27), Spent.CHECKPOINT): 5_000}
    )  # fmt: skip


@pytest.mark.parametrize(
    "phase", ["setup", "load", "train", "save", "commit", "evaluate", "done", "anneal-1", "documents"]
)
def test_every_phase_has_a_cause_that_holds(phase: str) -> None:
    assert cause_of_phase(phase) in HELD


moments = st.floats(-200_000, 200_000, allow_nan=False).map(at)
phases = st.sampled_from(["setup", "load", "train", "save", "evaluate", "done"])
spans = st.dictionaries(
    st.sampled_from(["2026-11-24", "2026-11-25", DAY, "2026-11-27"]), st.dictionaries(phases, st.floats(0, 90_000), max_size=3), max_size=4
)  # fmt: skip
ranks = st.lists(st.builds(RankFacts, spans, phases, moments), max_size=3)
attempts = st.builds(
    AttemptFacts,
    created_at=moments,
    held_at=st.none() | moments,
    started_at=st.none() | moments,
    ended_at=st.none() | moments,
    state=st.sampled_from(AttemptState),
    cause=st.none() | st.sampled_from(Cause),
    detected_at=st.none() | moments,
    kept_until=st.none() | moments,
    world_size=st.integers(3, 5),
    ranks=ranks,
)


@given(attempts, moments)
def test_the_causes_sum_exactly_to_what_was_held_whatever_clocks_say(facts: AttemptFacts, now: datetime) -> None:
    found = account(facts, now)
    end = facts.ended_at or now
    held: Counter[date] = Counter()
    if facts.held_at is not None:
        held.update(dict(days(facts.held_at, end)))
    counted: Counter[date] = Counter()
    for (day, cause), milliseconds in found.items():
        if cause in HELD:
            counted[day] += milliseconds
    assert all(milliseconds >= 0 for milliseconds in found.values())
    assert +counted == Counter({day: span * facts.world_size for day, span in held.items() if span})


@given(attempts, moments)
def test_that_somebody_resumed_moves_time_only_from_work_and_saving_to_lost_work(
    facts: AttemptFacts, now: datetime
) -> None:
    before, after = account(replace(facts, kept_until=None), now), account(facts, now)
    others = (Spent.START_UP, Spent.HANG, Spent.IDLE, Spent.QUEUE)
    assert _of(before, *others) == _of(after, *others)
    assert _of(after, Spent.TRAIN) <= _of(before, Spent.TRAIN)


def _of(found: Account, *causes: Spent) -> int:
    return sum(value for (_, cause), value in found.items() if cause in causes)


def test_groups_sum_to_the_total_and_goodput_is_the_share_of_work_in_gpu_hours() -> None:
    day = date(2026, 11, 26)
    entries = [
        Entry("one", "r1", "first", "h800", day, Spent.TRAIN, 3_600_000 * 6, 0),
        Entry("one", "r1", "first", "h800", day, Spent.LOST_WORK, 3_600_000 * 2, 0),
        Entry("two", "r2", "second", "cpu", day + timedelta(days=1), Spent.IDLE, 0, 3_600_000),
        Entry("two", "r2", "second", "cpu", day, Spent.QUEUE, 0, 3_600_000 * 5),
    ]
    one, two = group(entries, By.PROJECT)
    assert (one.key, one.held.gpu, one.causes.train.gpu, one.causes.lost_work.gpu, one.goodput) == (
        "one",
        8,
        6,
        2,
        0.75,
    )
    assert (two.held.cpu, two.causes.idle.cpu, two.queue.cpu, two.goodput) == (1, 1, 5, 0.0)
    assert [(row.key, row.name) for row in group(entries, By.RUN)] == [("r1", "first"), ("r2", "second")]
    assert [row.key for row in group(entries, By.CAUSE)] == ["train", "lost_work", "idle", "queue"]
    assert [row.key for row in group(entries, By.DAY)] == ["2026-11-26", "2026-11-27"]
