from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abruzzi.evaluations.paired import compare, sign_test

counts = st.integers(0, 60)


@given(counts, counts)
def test_the_sign_test_is_the_binomial_distributions(better: int, worse: int) -> None:
    n, fewer = better + worse, min(better, worse)
    exact = min(1.0, 2 * sum(comb(n, k) for k in range(fewer + 1)) / 2**n)
    assert sign_test(better, worse) == pytest.approx(exact, rel=1e-9)


def test_the_published_example_of_mcnemars_exact_test() -> None:
    # statsmodels.stats.contingency_tables.mcnemar([[101, 121], [59, 33]], exact=True): 4.434e-06
    assert sign_test(121, 59) == pytest.approx(4.434449e-06, rel=1e-5)


def test_only_items_that_both_have_a_score_of_are_compared() -> None:
    a = {"one": 0.0, "two": 1.0, "three": None, "four": 0.5, "five": 0.0, "six": 0.0, "seven": 1.0}
    b = {"one": 1.0, "two": 1.0, "three": 1.0, "four": 0.0, "five": 1.0, "six": 1.0, "eight": 1.0}
    found = compare(a, b)
    assert (found.items, found.left_out, found.better, found.worse) == (5, 3, 3, 1)
    assert found.difference == pytest.approx(0.5)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.5 < found.high
    assert [(pair.item, pair.b - pair.a) for pair in found.changed] == [
        ("four", -0.5), ("five", 1.0), ("one", 1.0), ("six", 1.0),
    ]  # fmt: skip


def test_with_too_few_items_nothing_is_said_of_others() -> None:
    found = compare({"one": 1.0}, {"one": 0.0})
    assert (found.difference, found.low, found.high) == (-1.0, None, None)
    assert compare({}, {}).difference is None


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_items_that_all_differ_alike_give_no_interval(score: float) -> None:
    found = compare(dict.fromkeys("abcdef", 0.0), dict.fromkeys("abcdef", score))
    assert (found.difference, found.low, found.high) == (score, None, None)


def test_the_interval_stays_within_what_scores_can_differ() -> None:
    a, b = dict.fromkeys("abcdef", 0.0), {**dict.fromkeys("abcdef", 1.0), "f": 0.0}
    # mean 5/6, deviation 0.4082, t(0.975, 5) = 2.571: up to 1.262
    up, down = compare(a, b), compare(b, a)
    assert (up.low, up.high) == (pytest.approx(0.4048, abs=1e-4), 1.0)
    assert (down.low, down.high) == (-1.0, pytest.approx(-0.4048, abs=1e-4))


def test_the_interval_is_students() -> None:
    b = dict(zip("abcdefghij", [1.0, 0, 0, 0, 1, 1, 0, 1, 0, 1], strict=True))
    a = {**dict.fromkeys("abcdefghij", 0.0), "d": 1.0}
    found = compare(a, b)
    # of [1, 0, 0, -1, 1, 1, 0, 1, 0, 1]: mean 0.4, deviation 0.6992, and t(0.975, 9) = 2.2622
    assert (found.low, found.high) == (pytest.approx(-0.1002, abs=1e-4), pytest.approx(0.9002, abs=1e-4))
