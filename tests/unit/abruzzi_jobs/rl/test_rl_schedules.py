"""Budgets, temperature and difficulty: small rules, by their numbers."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abruzzi.contracts.objective import DifficultyBand, TemperatureSchedule, TokenBudget
from abruzzi.contracts.rollout import Outcome, Status
from abruzzi_jobs.rl.objective.advantages import advantages_of
from abruzzi_jobs.rl.objective.budget import penalised
from abruzzi_jobs.rl.objective.difficulty import in_band, pass_at_k
from abruzzi_jobs.rl.objective.temperature import temperature_at


def test_a_temperature_goes_from_start_to_end_and_stays() -> None:
    shapes = {
        shape: [round(temperature_at(TemperatureSchedule(start=1.0, end=0.25, iterations=4, shape=shape), i), 4) for i in (0, 2, 4, 9)]
        for shape in ("linear", "cosine", "exponential")
    }  # fmt: skip
    assert shapes == {
        "linear": [1.0, 0.625, 0.25, 0.25],
        "cosine": [1.0, 0.625, 0.25, 0.25],
        "exponential": [1.0, 0.5, 0.25, 0.25],
    }
    assert temperature_at(TemperatureSchedule(start=0.8), 100) == 0.8


@given(st.integers(0, 40), st.sampled_from(["linear", "cosine", "exponential"]))
def test_a_falling_temperature_never_rises(iteration: int, shape: str) -> None:
    schedule = TemperatureSchedule(start=1.2, end=0.6, iterations=30, shape=shape)
    now, later = temperature_at(schedule, iteration), temperature_at(schedule, iteration + 1)
    assert 0.6 - 1e-12 <= later <= now <= 1.2


def test_a_used_up_budget_puts_the_penalty_in_the_rewards_place_or_below_it() -> None:
    right = Outcome(status=Status.OK, reward=1.0, components={"correct": 1.0})
    wrong = Outcome(status=Status.OK, reward=-2.0)
    absolute, minimum = (TokenBudget(tokens=8, rule=rule) for rule in ("absolute", "minimum"))
    assert [penalised(o, absolute).reward for o in (right, wrong)] == [-0.5, -0.5]
    assert [penalised(o, minimum).reward for o in (right, wrong)] == [-0.5, -2.0]
    found = penalised(right, absolute)
    assert (found.status, found.components) == (Status.BUDGET, {"correct": 1.0, "budget_penalty": -1.5})


def test_a_failure_does_not_become_a_penalty() -> None:
    failed = Outcome(status=Status.REWARD_TIMEOUT)
    assert penalised(failed, TokenBudget(tokens=8)) == failed


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_draws_of_k_with_a_right_one(attempts: int, data: st.DataObject) -> None:
    correct, k = data.draw(st.integers(0, attempts)), data.draw(st.integers(1, attempts))
    draws = list(combinations(range(attempts), k))
    share = sum(any(index < correct for index in draw) for draw in draws) / len(draws)
    assert pass_at_k(attempts, correct, k) == pytest.approx(share)


def test_the_band_keeps_what_is_neither_solved_nor_out_of_reach() -> None:
    band = DifficultyBand(attempts=8, k=4, low=0.1, high=0.95)
    assert [c for c in range(9) if in_band(band, attempts=8, correct=c)] == [1, 2, 3]
    with pytest.raises(ValueError, match="needs 0 <= right <= attempts"):
        pass_at_k(4, 5, 1)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=16))
def test_advantages_sum_to_zero_and_are_zero_where_all_are_alike(rewards: list[float]) -> None:
    found = advantages_of(rewards)
    assert sum(found) == pytest.approx(0, abs=1e-9)
    assert advantages_of(rewards[:1] * len(rewards)) == [0.0] * len(rewards)


def test_grpo_divides_by_the_groups_standard_deviation() -> None:
    assert advantages_of([0.0, 1.0], over_std=True) == pytest.approx(
        [-0.5 / (0.5**0.5 + 1e-4), 0.5 / (0.5**0.5 + 1e-4)]
    )
