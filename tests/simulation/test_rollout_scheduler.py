"""The rollout scheduler under everything that may happen to a trajectory (invariant 6), and the lengths that come out of it."""

from __future__ import annotations

from collections import Counter

import pytest
from simulation.rollout_world import RolloutWorld, Violation

from abruzzi.contracts.rollout import Status
from abruzzi_jobs.rl.rollout.concurrency import Concurrency, ConcurrencyPolicy
from abruzzi_jobs.rl.rollout.events import (
    Begin,
    Cause,
    Complete,
    Draw,
    End,
    Ended,
    Halt,
    Halted,
    KnownGroup,
    Offered,
    Play,
    Release,
    Stood,
    Tick,
)
from abruzzi_jobs.rl.rollout.scheduler import Scheduler, SchedulerPolicy


def played(seed: int, *, iterations: int) -> RolloutWorld:
    world = RolloutWorld(seed)
    for _ in range(iterations):
        world.iterate()
        if world.rng.random() < 0.15:
            world.restart()
    world.stop()
    return world


def test_every_trajectory_ends_once_and_no_group_is_mixed_whatever_happens() -> None:
    kinds: Counter[str] = Counter()
    statuses: Counter[Status] = Counter()
    fates: Counter[str] = Counter()
    for seed in range(150):
        world = played(seed, iterations=8)
        kinds += world.kinds
        statuses += Counter(world.status.values())
        fates += Counter(world.fate.values())
    expected = {"Draw", "Play", "Pause", "Preempt", "Release", "End", "Drop", "Complete", "Halted", "restart"}
    assert set(kinds) == expected, f"the seeds do not reach everything: {kinds}"
    assert {Status.OK, Status.STALE, Status.CANCELLED, Status.ENGINE_ERROR, Status.ENVIRONMENT_TIMEOUT} <= set(statuses)
    assert set(fates) == {"complete", "dropped"}


@pytest.mark.prove
@pytest.mark.parametrize("part", range(10))
def test_every_trajectory_ends_once_over_ten_thousand_seeds(part: int) -> None:
    for seed in range(1000 + part * 1000, 2000 + part * 1000):
        assert played(seed, iterations=12).trained


def test_a_planted_bug_is_found() -> None:
    """The rules have teeth: a scheduler that hears reports of dispatches that are over ends something twice, or what runs."""

    class Deaf(Scheduler):
        def _reported(self, name: str, dispatch: int):
            return self._running.get(name) or self._members.get(name)

    found = ""
    for seed in range(60):
        world = RolloutWorld(seed, faults=0.2)
        world.scheduler = Deaf(world.policy)
        try:
            for _ in range(8):
                world.iterate()
        except (Violation, KeyError) as error:
            found = str(error)
            break
    assert found


def test_what_is_trained_on_is_as_long_as_what_was_asked_for() -> None:
    """Partial rollout over 200 iterations: nothing is dropped for being long, so the only difference is what is still under way at the end."""
    world = RolloutWorld(3, faults=0.0)
    world.policy = SchedulerPolicy(
        groups=8, members=4, ahead=0.5, max_span=1000, concurrency=ConcurrencyPolicy(start=64, most=64)
    )
    world.cap_s, world.scheduler = None, Scheduler(world.policy)
    for _ in range(200):
        assert len(world.iterate()) == 8
    asked = sum(world.asked_length.values()) / len(world.asked_length)
    trained = sum(world.asked_length[member] for member in world.trained) / len(world.trained)
    assert len(world.trained) == 200 * 32
    assert abs(trained / asked - 1) < 0.02, (trained, asked)
    assert world.kinds["Drop"] == 0


def scheduler(**changes: object) -> Scheduler:
    return Scheduler(SchedulerPolicy(**({"groups": 1, "members": 2, "ahead": 0.0, "max_span": 3} | changes)))


def begun(one: Scheduler, *names: str, version: int = 0) -> dict[str, int]:
    """Dispatches by member."""
    (draw,) = one.decide(Begin(version), 0.0)
    assert draw == Draw(len(names))
    return {c.member: c.dispatch for c in one.decide(Offered(names), 0.0) if isinstance(c, Play)}


def test_an_iteration_pauses_the_tail_and_resumes_it_first() -> None:
    one = scheduler(ahead=1.0)
    dispatches = begun(one, "a", "b")
    assert list(dispatches) == ["a/0", "a/1", "b/0", "b/1"]
    for member in ("b/0", "b/1"):
        commands = one.decide(Ended(member, dispatches[member], Status.OK), 1.0)
    assert type(commands[-1]).__name__ == "Pause"
    assert one.decide(Stood("a/0", dispatches["a/0"]), 1.1) == []
    assert one.decide(Stood("a/1", dispatches["a/1"]), 1.2) == [Complete(("b",))]
    again = one.decide(Begin(1), 2.0)
    assert [c.member for c in again if isinstance(c, Play)] == ["a/0", "a/1"]
    assert all(c.is_resumed for c in again if isinstance(c, Play))
    assert again[-1] == Draw(1)


def test_a_lease_ends_the_session_and_not_the_trajectory() -> None:
    one = scheduler(ahead=1.0, lease_s=5.0)
    dispatches = begun(one, "a", "b")
    for member in ("b/0", "b/1"):
        one.decide(Ended(member, dispatches[member], Status.OK), 1.0)
    one.decide(Stood("a/0", dispatches["a/0"]), 2.0)
    one.decide(Ended("a/1", dispatches["a/1"], Status.BUDGET), 2.0)
    assert one.decide(Tick(), 6.9) == []
    assert one.decide(Tick(), 7.0) == [Release("a/0")]
    assert one.decide(Tick(), 99.0) == [], "once"
    assert one.decide(Begin(1), 100.0)[0] == Play("a/0", 5, is_resumed=True)


def test_what_does_not_end_is_ended_at_its_deadline_and_not_heard_any_more() -> None:
    one = scheduler(deadline_s=10.0, min_counted=1)
    dispatches = begun(one, "a")
    one.decide(Ended("a/0", dispatches["a/0"], Status.OK), 1.0)
    ends = one.decide(Tick(), 10.0)
    assert ends == [End("a/1", Status.ENGINE_ERROR, is_by_scheduler=True), Complete(("a",))]
    assert one.decide(Ended("a/1", dispatches["a/1"], Status.OK), 11.0) == []
    assert one.counts["late"] == 1


def test_tokens_of_an_iteration_run_out_and_another_round_of_them_is_given_when_nothing_else_can_run() -> None:
    one = scheduler()
    dispatches = begun(one, "a")
    assert one.decide(Stood("a/0", dispatches["a/0"], Cause.CAP), 1.0) == []
    commands = one.decide(Stood("a/1", dispatches["a/1"], Cause.CAP), 2.0)
    assert [c.member for c in commands if isinstance(c, Play)] == ["a/0", "a/1"]
    assert one.counts["rounds"] == 1


def test_an_iteration_is_shorter_where_the_source_ends() -> None:
    one = scheduler(groups=3)
    assert one.decide(Begin(0), 0.0) == [Draw(3)]
    plays = one.decide(Offered(("a",)), 0.0)
    for play in plays[:-1]:
        assert one.decide(Ended(play.member, play.dispatch, Status.OK), 1.0) == [End(play.member, Status.OK)]
    assert one.decide(Ended(plays[-1].member, plays[-1].dispatch, Status.OK), 1.0)[-1] == Complete(("a",))
    assert one.decide(Begin(1), 2.0) == [Draw(3)], "it may have more another time"


def test_groups_of_another_process_go_on_where_they_were() -> None:
    one = scheduler(groups=2)
    one.restore(
        (
            KnownGroup(id="whole", born=0, members={0: Status.OK, 1: Status.TURNS}),
            KnownGroup(id="part", born=0, members={0: Status.OK, 1: None}),
        )
    )
    assert one.decide(Begin(1), 0.0) == [Play("part/1", 1, is_resumed=True)]
    ends = one.decide(Ended("part/1", 1, Status.OK), 1.0)
    assert ends == [End("part/1", Status.OK), Complete(("whole", "part"))]


def test_a_process_that_is_to_end_pauses_and_hands_nothing_out() -> None:
    one = scheduler(ahead=1.0)
    dispatches = begun(one, "a", "b")
    for member in ("a/0", "a/1", "b/0"):
        one.decide(Ended(member, dispatches[member], Status.OK), 1.0)
    assert one.decide(Halt(), 1.0) == [], "it is pausing already"
    assert one.decide(Stood("b/1", dispatches["b/1"]), 1.1) == [Halted()]
    assert [group.id for group in one.known()] == ["a", "b"]
    assert one.decide(Begin(0), 2.0) == [Complete(("a",))]
    with pytest.raises(ValueError, match="no iteration"):
        one.decide(Halt(), 3.0)


def test_concurrency_grows_where_it_holds_somebody_back_and_retreats_before_the_cache_is_full() -> None:
    policy = ConcurrencyPolicy(start=32, most=64, grow=8, interval_s=1.0)
    one = Concurrency(policy)
    assert one.used(0.3, running=10, waiting=5, now=0.0) == 0
    assert one.limit == 32, "a limit that nobody reaches is no evidence of room"
    one.used(0.3, running=32, waiting=5, now=1.0)
    assert one.limit == 40
    one.used(0.3, running=40, waiting=5, now=1.5)
    assert one.limit == 40, "one change at a time"
    assert one.used(0.85, running=40, waiting=5, now=3.0) == 0
    assert one.limit == 30, "those beyond it end by themselves"
    assert one.used(0.95, running=36, waiting=5, now=5.0) == 36 - 22
    assert one.limit == 22
    assert Concurrency(ConcurrencyPolicy(most=8)).limit == 8
    with pytest.raises(ValueError, match="least is 9; give 1 to 8"):
        ConcurrencyPolicy(least=9, most=8)
