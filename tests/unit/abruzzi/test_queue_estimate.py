"""Estimates of when something is let in: by what runs and says how long it takes, and none where that cannot be known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abruzzi.pools.estimate import MOST_PLAYED, Ask, Holder, estimates


def gpus(count: float) -> Ask:
    return Ask(gpus=count)


def running(count: float, seconds: float | None) -> Holder:
    return Holder(gpus(count), seconds)


@pytest.mark.parametrize(
    ("queue", "holders", "free", "seconds"),
    [
        ([8], [], 8, [0]),
        ([8], [running(8, 600)], 0, [600]),
        ([16], [running(8, 600), running(8, 60)], 0, [600]),
        ([8, 8], [running(8, 600), running(8, 60)], 0, [60, 600]),
        ([16, 8], [running(8, 60), running(16, 600)], 0, [600, 60]),  # what does not fit keeps nobody behind it
        ([8, 8], [running(8, 60)], 0, [60, None]),  # how long the first will take nobody knows
        ([8], [running(8, None)], 0, [None]),
        ([8], [running(8, None), running(8, 60)], 0, [60]),
        ([16], [running(8, None), running(8, 60)], 0, [None]),
        ([8], [], 0, [None]),
    ],
)
def test_it_is_when_enough_has_ended_that_says_when(
    queue: list[float], holders: list[Holder], free: float, seconds: list[float | None]
) -> None:
    assert [one.seconds for one in estimates([gpus(n) for n in queue], holders, gpus(free))] == seconds


def test_the_basis_says_what_it_waits_for_or_why_there_is_none() -> None:
    holders = [running(8, 60), running(8, 600), running(8, None)]
    first, second, third = estimates([gpus(8), gpus(8), gpus(8)], holders, gpus(0))
    assert first.basis == "when 1 of the 3 stages that hold quota has ended, by their pace so far"
    assert second.basis == "when 2 of the 3 stages that hold quota have ended, by their pace so far"
    assert third.basis == "1 of the stages that hold quota does not say how long it takes"
    assert (
        estimates([gpus(8), gpus(8)], [running(8, 5)], gpus(0))[1].basis
        == "nobody knows how long those ahead of it will take"
    )
    assert "not Abruzzi's" in estimates([gpus(8)], [], gpus(0))[0].basis


def test_every_resource_must_fit() -> None:
    ask = Ask(cpus=4, memory=100, gpus=1)
    (one,) = estimates([ask], [Holder(Ask(cpus=4), 10), Holder(Ask(memory=100), 20)], Ask(gpus=1))
    assert one.seconds == 20


def test_who_is_far_back_gets_no_estimate() -> None:
    last = estimates([gpus(0)] * (MOST_PLAYED + 1), [], gpus(0))[-1]
    assert (last.seconds, last.basis) == (None, f"more than {MOST_PLAYED} are ahead of it")


asks = st.integers(1, 32).map(gpus)
holders_of = st.lists(st.builds(Holder, asks, st.none() | st.floats(0, 1e6)), max_size=6)


@given(asks, holders_of, st.integers(0, 32))
def test_alone_in_the_queue_more_free_quota_makes_nothing_later(ask: Ask, holders: list[Holder], free: int) -> None:
    # Not alone it may: whoever is behind and fits into what is free now takes it away from the first (BestEffortFIFO).
    (one,), (richer,) = estimates([ask], holders, gpus(free)), estimates([ask], holders, gpus(free + 8))
    if one.seconds is not None:
        assert richer.seconds is not None
        assert richer.seconds <= one.seconds


@given(st.lists(asks, min_size=1, max_size=6), holders_of, st.integers(0, 32))
def test_nothing_is_let_in_beyond_what_is_free_by_then(queue: list[Ask], holders: list[Holder], free: int) -> None:
    found = estimates(queue, holders, gpus(free))
    for one in found:
        if one.seconds is not None:
            ended = sum(h.holds.gpus for h in holders if h.seconds_left is not None and h.seconds_left <= one.seconds)
            inside = sum(
                ask.gpus
                for ask, e in zip(queue, found, strict=True)
                if e.seconds is not None and e.seconds <= one.seconds
            )
            assert inside <= free + ended
