"""Bounded asynchrony: which iterations are played before their turn, with which weights, and what a bound of η versions forbids."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abruzzi.contracts.rollout import Status
from abruzzi_jobs.rl.controller.ahead import Ahead
from abruzzi_jobs.rl.rollout.events import Begin, Complete, Draw, Ended, Event, Offered, Play, Renewed
from abruzzi_jobs.rl.rollout.scheduler import Scheduler, SchedulerPolicy


@dataclass
class Plays:
    """Iterations that are played until they are told to end; `begun` with the version that was served."""

    begun: list[tuple[int, int]] = field(default_factory=list)
    ends: dict[int, asyncio.Event] = field(default_factory=dict)

    async def play(self, iteration: int, served: int) -> Any:
        self.begun.append((iteration, served))
        await self.ends.setdefault(iteration, asyncio.Event()).wait()
        return iteration

    def end(self, iteration: int) -> None:
        self.ends.setdefault(iteration, asyncio.Event()).set()


async def quiet() -> None:
    """All that can go on without anybody's doing has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)


def ahead_of(plays: Plays, *, staleness: int, last: int = 9, barred: tuple[int, ...] = ()) -> Ahead:
    made = Ahead(plays.play, staleness=staleness, last=last, is_barred=lambda iteration: iteration in barred)
    made.begin(0, 0)
    return made


async def test_the_next_iteration_is_played_while_one_is_trained_and_no_further() -> None:
    plays = Plays()
    ahead = ahead_of(plays, staleness=1)
    for iteration in (0, 1):
        plays.end(iteration)
    assert await ahead.take(0) == 0
    await quiet()
    assert plays.begun == [(0, 0), (1, 0)], "iteration 2 would be two versions away"
    ahead.renewed(1)
    await quiet()
    assert plays.begun[2:] == [(2, 1)]
    plays.end(2)
    assert await ahead.take(1) == 1
    assert await ahead.take(2) == 2


async def test_without_asynchrony_an_iteration_is_played_when_it_is_asked_for() -> None:
    plays = Plays()
    ahead = ahead_of(plays, staleness=0)
    for iteration in (0, 1):
        plays.end(iteration)
    assert await ahead.take(0) == 0
    ahead.renewed(1)
    await quiet()
    assert plays.begun == [(0, 0)]
    assert await ahead.take(1) == 1
    assert plays.begun[:2] == [(0, 0), (1, 1)]


async def test_what_must_come_before_an_iteration_comes_before_it() -> None:
    plays = Plays()
    ahead = ahead_of(plays, staleness=1, barred=(1,))
    for iteration in (0, 1):
        plays.end(iteration)
    await ahead.take(0)
    ahead.renewed(1)
    await quiet()
    assert plays.begun == [(0, 0)]
    await ahead.take(1)
    assert plays.begun[:2] == [(0, 0), (1, 1)]


async def test_after_the_trainers_loss_what_was_under_way_ends_and_all_is_asked_for_again() -> None:
    plays = Plays()
    ahead = ahead_of(plays, staleness=1)
    plays.end(0)
    await ahead.take(0)
    await quiet()
    drained = asyncio.ensure_future(ahead.drain())
    await quiet()
    assert not drained.done()
    plays.end(1)
    await drained
    ahead.begin(0, 0)
    assert await ahead.take(0) == 0
    assert [iteration for iteration, _ in plays.begun] == [0, 1, 0, 1]


@given(
    staleness=st.integers(0, 3),
    steps=st.lists(st.tuples(st.sampled_from(["train", "end"]), st.integers(0, 3)), max_size=60),
    barred=st.sets(st.integers(0, 9), max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_whatever_takes_how_long_iterations_are_played_once_in_order_and_within_the_bound(
    staleness: int, steps: list[tuple[str, int]], barred: set[int]
) -> None:
    async def simulate() -> Plays:
        plays, last = Plays(), 6
        ahead = ahead_of(plays, staleness=staleness, last=last, barred=tuple(barred))
        trained = 0
        taking = asyncio.ensure_future(ahead.take(0))
        for what, turns in [*steps, *[("end", 1), ("train", 1)] * 2 * last]:
            for _ in range(turns):
                await asyncio.sleep(0)
            if what == "end" and plays.begun:
                plays.end(plays.begun[-1][0])
            await quiet()
            if what == "train" and taking.done() and trained < last:
                assert taking.result() == trained
                trained += 1
                ahead.renewed(trained)
                if trained < last:
                    taking = asyncio.ensure_future(ahead.take(trained))
        assert trained == last, plays.begun
        return plays

    plays = asyncio.run(simulate())
    assert [iteration for iteration, _ in plays.begun] == list(range(6))
    assert all(0 <= iteration - served <= staleness for iteration, served in plays.begun)


# The scheduler's side of it


def decided(scheduler: Scheduler, *events: Event) -> list[Any]:
    return [command for event in events for command in scheduler.decide(event, 0.0)]


def test_the_scheduler_refuses_an_iteration_that_the_engine_is_too_old_for() -> None:
    scheduler = Scheduler(SchedulerPolicy(groups=1, members=1, ahead=0.0, staleness=1, min_counted=1))
    with pytest.raises(ValueError, match="at most 1 versions may lie between"):
        scheduler.decide(Begin(3, served=1), 0.0)
    assert any(isinstance(command, Draw) for command in scheduler.decide(Begin(3, served=2), 0.0))


def test_a_group_is_of_the_version_that_was_served_when_it_began() -> None:
    scheduler = Scheduler(SchedulerPolicy(groups=2, members=1, ahead=0.0, staleness=1, min_counted=1))
    decided(scheduler, Begin(3, served=2))
    first = decided(scheduler, Offered(("a", "b")))
    assert [group.born for group in scheduler.known()] == [2, 2]
    decided(scheduler, Renewed(3), *(Ended(c.member, c.dispatch, Status.OK) for c in first if isinstance(c, Play)))
    begun = decided(scheduler, Begin(4, served=3), Offered(("c", "d")))
    assert {group.born for group in scheduler.known()} == {3}
    found = decided(scheduler, *(Ended(c.member, c.dispatch, Status.OK) for c in begun if isinstance(c, Play)))
    assert isinstance(found[-1], Complete)
