from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from abruzzi_jobs.evals.intervals import ratio, student, welch, wilson


def test_wilson_gives_published_values() -> None:
    """Newcombe 1998, table I: 81 of 263 and 0 of 20."""
    a, b = wilson(81, 263), wilson(0, 20)
    assert (round(a.low, 4), round(a.high, 4)) == (0.2553, 0.3662)
    assert (round(b.low, 4), round(b.high, 4)) == (0.0, 0.1611)


@given(trials=st.integers(1, 500), share=st.floats(0, 1))
def test_wilson_holds_the_share_and_stays_between_nought_and_one(trials: int, share: float) -> None:
    successes = round(share * trials)
    interval = wilson(successes, trials)
    assert 0 <= interval.low <= interval.value + 1e-12
    assert interval.value - 1e-12 <= interval.high <= 1


def test_a_ratio_is_of_sums_and_covers_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(100):
        sizes = rng.integers(100, 1000, 60).astype(float)
        interval = ratio(sizes * rng.normal(2.0, 0.3, 60), sizes, seed=trial)
        hits += interval.low <= 2.0 <= interval.high
    assert 85 <= hits <= 100
    assert ratio(np.array([1.0, 3.0]), np.array([1.0, 1.0])).value == 2.0


def test_the_same_seed_draws_the_same_documents() -> None:
    sizes, bits = np.array([1.0, 5.0, 9.0, 2.0, 3.0]), np.array([2.0, 5.0, 4.0, 3.0, 1.0])
    assert ratio(bits, sizes, seed=3) == ratio(bits, sizes, seed=3)
    assert ratio(bits, sizes, seed=3) != ratio(bits, sizes, seed=4)


@pytest.mark.parametrize("documents", [1, 4])
def test_few_documents_have_a_value_and_no_interval(documents: int) -> None:
    sizes = np.append(np.arange(1.0, documents + 1), 0.0)  # an empty one is none
    interval = ratio(2 * sizes, sizes)
    assert (interval.value, interval.low, interval.high) == (2.0, None, None)


def test_nothing_has_no_interval() -> None:
    with pytest.raises(ValueError, match="share"):
        wilson(0, 0)
    with pytest.raises(ValueError, match="documents"):
        ratio(np.zeros(0), np.zeros(0))


@given(
    values=st.lists(st.floats(-100, 100), min_size=2, max_size=12),
    others=st.lists(st.floats(-100, 100), min_size=2, max_size=12),
)
def test_intervals_of_means_are_scipys_and_of_differences_no_narrower(values: list[float], others: list[float]) -> None:
    if np.std(values) < 1e-6 or np.std(others) < 1e-6:
        return
    found, wanted = student(values), stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.low == pytest.approx(wanted.low, rel=1e-3, abs=1e-3)
    assert found.high == pytest.approx(wanted.high, rel=1e-3, abs=1e-3)
    ours, theirs = welch(values, others), stats.ttest_ind(values, others, equal_var=False).confidence_interval(0.95)
    assert ours.low is not None
    assert ours.high is not None
    rounding = 1e-3 * (theirs.high - theirs.low)
    assert ours.low <= theirs.low + rounding
    assert ours.high >= theirs.high - rounding


def test_one_value_has_a_mean_and_no_interval() -> None:
    assert (student([3.0]).value, student([3.0]).low) == (3.0, None)
    assert welch([3.0], [1.0, 2.0]).low is None
    for wrong in (lambda: student([]), lambda: welch([], [1.0])):
        with pytest.raises(ValueError, match="value"):
            wrong()
