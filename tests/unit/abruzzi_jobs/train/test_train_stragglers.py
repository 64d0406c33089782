"""A rank that holds up the others is named with its node; noise, a slow moment and slow steps of all are no stragglers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_lab import Lab

from abruzzi_jobs.train.stragglers import SLOWDOWN, WINDOW_STEPS, StragglerWatch

SLOW_STAGE = Path(__file__).parents[3] / "slow_stage.py"


def steps(seed: int, ranks: int, count: int, *, slow: int | None = None, times: float = 1.0) -> list[list[float]]:
    """Of one second, give or take 3 %, and of a length that changes from step to step for all."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        length = chance.uniform(0.5, 2.0)
        found.append([length * chance.gauss(1.0, 0.03) * (times if rank == slow else 1.0) for rank in range(ranks)])
    return found


@given(st.integers(0, 2**32), st.integers(2, 16))
def test_noise_and_steps_that_are_long_for_all_are_no_straggler(seed: int, ranks: int) -> None:
    watch = StragglerWatch(ranks)
    assert [watch.note(one) for one in steps(seed, ranks, 2 * WINDOW_STEPS)] == [None] * 2 * WINDOW_STEPS


@given(st.integers(0, 2**32), st.integers(2, 16), st.floats(1.4, 5.0), st.data())
def test_a_lasting_slowdown_is_found_within_a_window_and_over_within_another(
    seed: int, ranks: int, times: float, data: st.DataObject
) -> None:
    slow, watch = data.draw(st.integers(0, ranks - 1)), StragglerWatch(ranks)
    for one in steps(seed, ranks, WINDOW_STEPS):
        assert watch.note(one) is None
    found = [watch.note(one) for one in steps(seed + 1, ranks, WINDOW_STEPS, slow=slow, times=times)][-1]
    assert found is not None
    assert found.rank == slow
    assert found.slowdown == pytest.approx(times, rel=0.1)
    assert [watch.note(one) for one in steps(seed + 2, ranks, WINDOW_STEPS)][-1] is None


def test_a_slow_moment_is_none_and_a_slowdown_that_costs_little_is_left_alone() -> None:
    watch = StragglerWatch(4)
    for number, one in enumerate(steps(0, 4, 3 * WINDOW_STEPS)):
        assert watch.note([10 * one[0], *one[1:]] if number % WINDOW_STEPS < 5 else one) is None
    little = (1 + SLOWDOWN) / 2
    assert [watch.note(one) for one in steps(1, 4, WINDOW_STEPS, slow=2, times=little)] == [None] * WINDOW_STEPS


def test_a_rank_alone_and_ranks_whose_times_are_not_known_yet_have_none() -> None:
    assert StragglerWatch(1).note([1.0]) is None
    watch = StragglerWatch(2)
    assert [watch.note([0.0, 0.0]) for _ in range(2 * WINDOW_STEPS)] == [None] * 2 * WINDOW_STEPS


@pytest.mark.slow
def test_a_run_says_which_rank_on_which_node_holds_up_the_others(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    spec = lab.spec({"resources": {"ranks": 2}, "schedule": {"tokens": 30 * 256}})
    attempt = lab.start(spec, program=SLOW_STAGE, environment={"SLOW_RANK": "1", "NODE_NAME": "gpu-7"})
    assert attempt.wait() == [0, 0], attempt.log()
    assert "rank 1 on gpu-7 takes" in attempt.log(), attempt.log()
    points = attempt.points()
    slowest, median = points["train/rank_seconds/slowest"], points["train/rank_seconds/median"]
    assert all(slowest[step] > median[step] for step in slowest)
