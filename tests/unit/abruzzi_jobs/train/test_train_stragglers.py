"""A rank that holds up the others is named with its node; noise, a slow moment and slow steps of all are no stragglers."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_lab import Lab

from abruzzi_jobs.distributed import Layout
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
    watch = StragglerWatch([0] * ranks)
    assert [watch.note(one) for one in steps(seed, ranks, 2 * WINDOW_STEPS)] == [None] * 2 * WINDOW_STEPS


@given(st.integers(0, 2**32), st.integers(2, 16), st.floats(1.4, 5.0), st.data())
def test_a_lasting_slowdown_is_found_within_a_window_and_over_within_another(
    seed: int, ranks: int, times: float, data: st.DataObject
) -> None:
    slow, watch = data.draw(st.integers(0, ranks - 1)), StragglerWatch([0] * ranks)
    for one in steps(seed, ranks, WINDOW_STEPS):
        assert watch.note(one) is None
    found = [watch.note(one) for one in steps(seed + 1, ranks, WINDOW_STEPS, slow=slow, times=times)][-1]
    assert found is not None
    assert (found.rank, found.expected_by) == (slow, "the others")
    assert found.slowdown == pytest.approx(times, rel=0.1)
    assert [watch.note(one) for one in steps(seed + 2, ranks, WINDOW_STEPS)][-1] is None


def test_a_slow_moment_is_none_and_a_slowdown_that_costs_little_is_left_alone() -> None:
    watch = StragglerWatch([0] * 4)
    for number, one in enumerate(steps(0, 4, 3 * WINDOW_STEPS)):
        assert watch.note([10 * one[0], *one[1:]] if number % WINDOW_STEPS < 5 else one) is None
    little = (1 + SLOWDOWN) / 2
    assert [watch.note(one) for one in steps(1, 4, WINDOW_STEPS, slow=2, times=little)] == [None] * WINDOW_STEPS


def test_a_rank_alone_and_ranks_whose_times_are_not_known_yet_have_none() -> None:
    assert StragglerWatch([0]).note([1.0]) is None
    watch = StragglerWatch([0, 0])
    assert [watch.note([0.0, 0.0]) for _ in range(2 * WINDOW_STEPS)] == [None] * 2 * WINDOW_STEPS


STAGES = [1.0, 1.7, 1.4, 0.6]
"""Seconds of a pipeline's stages: they differ by plan."""


def passes(seed: int, count: int, *, dp: int = 1, slow: int | None = None, times: float = 1.0) -> list[list[float]]:
    """Of the ranks of a pipeline of four stages, `dp` of each, give or take 3 %; all go with the machine's pace, which is not the same in each step."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        pace = chance.uniform(0.95, 1.05)
        found.append(
            [
                pace * STAGES[rank // dp] * chance.gauss(1.0, 0.03) * (times if rank == slow else 1.0)
                for rank in range(4 * dp)
            ]
        )
    return found


@given(st.integers(0, 2**32), st.integers(1, 3))
def test_stages_that_differ_by_plan_and_a_pace_that_changes_for_all_are_no_stragglers(seed: int, dp: int) -> None:
    watch = StragglerWatch(Layout(pp=4, dp=dp).shares)
    halves = [passes(seed, 3 * WINDOW_STEPS, dp=dp), [[2 * s for s in one] for one in passes(seed + 1, 40, dp=dp)]]
    assert {watch.note(one) for half in halves for one in half} == {None}


@given(st.integers(0, 2**32), st.floats(1.4, 5.0), st.integers(0, 3))
def test_a_stage_that_one_rank_has_to_itself_is_compared_with_its_past_as_long_as_it_is_slow(
    seed: int, times: float, slow: int
) -> None:
    watch = StragglerWatch(Layout(pp=4).shares)
    assert {watch.note(one) for one in passes(seed, 3 * WINDOW_STEPS)} == {None}
    for round_ in range(6):  # longer than the past is remembered
        found = [watch.note(one) for one in passes(seed + round_, WINDOW_STEPS, slow=slow, times=times)][-1]
        assert found is not None
        assert (found.rank, found.expected_by) == (slow, "it used to")
        assert found.slowdown == pytest.approx(times, rel=0.15)
    assert [watch.note(one) for one in passes(seed + 6, WINDOW_STEPS)][-1] is None


@given(st.integers(0, 2**32), st.floats(1.4, 5.0), st.integers(2, 3), st.data())
def test_a_stage_that_several_ranks_have_is_compared_with_its_replicas_and_needs_no_past(
    seed: int, times: float, dp: int, data: st.DataObject
) -> None:
    slow, watch = data.draw(st.integers(0, 4 * dp - 1)), StragglerWatch(Layout(pp=4, dp=dp).shares)
    found = [watch.note(one) for one in passes(seed, WINDOW_STEPS, dp=dp, slow=slow, times=times)][-1]
    assert found is not None
    assert (found.rank, found.expected_by) == (slow, "the other ranks of its pipeline stage")


def test_other_work_begins_a_new_past_and_others_that_become_fast_make_no_straggler() -> None:
    watch = StragglerWatch(Layout(pp=4).shares)
    for one in passes(0, 3 * WINDOW_STEPS):
        assert watch.note(one, work=4096) is None
    longer = [[3 * s, *rest] for s, *rest in passes(1, 3 * WINDOW_STEPS)]  # attention weighs more, in one stage
    assert {watch.note(one, work=32768) for one in longer} == {None}
    assert {watch.note([s / 3, *(r / 3 for r in rest[:-1]), rest[-1]], work=32768) for s, *rest in longer} == {None}


def test_shares_are_of_a_stage_and_of_experts() -> None:
    assert Layout(pp=2, ep=2, dp=4).shares == [0, 1, 0, 1, 2, 3, 2, 3]
    assert Layout(dp=3).shares == [0, 0, 0]
    assert Layout(pp=3, vpp=2).shares == [0, 1, 2]


@pytest.mark.slow
def test_a_pipeline_says_which_of_its_ranks_became_slow_though_all_wait_for_each_other(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    pipeline = {"model": {"num_layers": 2}, "parallel": {"pp": 2}, "resources": {"ranks": 2}}
    short = {"schedule": {"tokens": 60 * 128}, "batch": {"sequences": 4}, "checkpoint": {"every_steps": 100}}
    slow = {"SLOW_RANK": "1", "SLOW_FROM": "42", "NODE_NAME": "gpu-7"}
    attempt = lab.start(lab.spec({**pipeline, **short}), program=SLOW_STAGE, environment=slow)
    assert attempt.wait() == [0, 0], attempt.log()
    assert re.search(r"rank 1 on gpu-7 takes \d+\.\d times as long as it used to", attempt.log()), attempt.log()
    assert "train/rank_seconds/slowest" in attempt.points()


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
