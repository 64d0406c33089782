"""Rates, in virtual time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abruzzi_jobs.chat.limits import Rate


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def rate(per_minute: float | None, **more) -> tuple[Rate, Clock]:
    clock = Clock()
    return Rate(per_minute, clock=clock, sleep=clock.sleep, **more), clock


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.5, 300), min_size=2, max_size=40), st.sampled_from([60.0, 600.0, 5000.0]))
def test_units_of_any_minute_stay_below_the_rate(units: list[float], per_minute: float) -> None:
    limited, clock = rate(per_minute)
    given_at: list[tuple[float, float]] = []

    async def run() -> None:
        for unit in units:
            await limited.take(unit)
            given_at.append((clock.now, unit))

    asyncio.run(run())
    for index, (at, _) in enumerate(given_at):
        # What began within a minute; the last of it may be longer than its share, which those after it pay for.
        within = [unit for then, unit in given_at[index:] if then < at + 60]
        assert sum(within[:-1]) <= per_minute * 61 / 60 + 1e-6


async def test_what_was_not_needed_is_given_back() -> None:
    limited, clock = rate(60)
    await limited.take(1)
    await limited.take(10)
    limited.give_back(9)
    await limited.take(1)
    assert clock.now == pytest.approx(1001.0)


async def test_without_a_rate_nobody_waits_except_for_a_pause() -> None:
    limited, clock = rate(None)
    for _ in range(1000):
        await limited.take()
    assert clock.now == 1000
    limited.pause(5)
    await limited.take()
    assert clock.now == 1005
