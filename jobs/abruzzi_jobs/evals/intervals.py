"""Confidence intervals, 95 %: Wilson's for shares, bootstrap over documents for ratios and over items for scores, Student's and Welch's for means over
seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from abruzzi.contracts.interval import Interval, student, student_point, wilson

__all__ = ["Interval", "mean", "ratio", "student", "welch", "wilson"]

RESAMPLES = 2000
MIN_DOCUMENTS = 5
"""Fewer say nothing about others: resampling one document gives an interval of no width."""
_DRAWN_AT_A_TIME = 1 << 20


def ratio(numerators: NDArray[np.float64], denominators: NDArray[np.float64], *, seed: int = 0) -> Interval:
    """Of sum / sum over documents, which are drawn with replacement (percentile bootstrap); no interval over fewer than MIN_DOCUMENTS.

    Calls with the same seed and number of documents draw the same documents, so differences of two models on the same
    documents are paired: pass the difference as numerators. Raises ValueError without documents or bytes.
    """
    if len(numerators) != len(denominators) or not len(numerators) or denominators.sum() <= 0:
        raise ValueError("a ratio needs documents, as many numerators as denominators, and a positive sum below")
    value = float(numerators.sum() / denominators.sum())
    if np.count_nonzero(denominators) < MIN_DOCUMENTS:
        return Interval(value=value, low=None, high=None)
    draws = np.random.default_rng(seed).multinomial(
        len(numerators), np.full(len(numerators), 1 / len(numerators)), size=RESAMPLES
    )
    below = draws @ denominators
    ratios = (draws @ numerators)[below > 0] / below[below > 0]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return Interval(value=value, low=float(low), high=float(high))


def mean(values: NDArray[np.float64], *, seed: int = 0) -> Interval:
    """Of a mean over items, which are drawn with replacement (percentile bootstrap); of scores that are all 0 or 1 Wilson's, as resampling items that
    are all alike gives an interval of no width. No interval over fewer than MIN_DOCUMENTS.

    A resample is told by how often each value stands in it, so memory and time go with the different values, not with the items. Raises ValueError
    without values."""
    if not len(values):
        raise ValueError("a mean needs values")
    value = float(values.mean())
    if len(values) < MIN_DOCUMENTS:
        return Interval(value=value, low=None, high=None)
    different, counts = np.unique(values, return_counts=True)
    if set(different.tolist()) <= {0.0, 1.0}:
        return wilson(int(values.sum()), len(values))
    rng = np.random.default_rng(seed)
    rows = max(1, _DRAWN_AT_A_TIME // len(different))
    means = [
        rng.multinomial(len(values), counts / len(values), size=min(rows, RESAMPLES - done)) @ different / len(values)
        for done in range(0, RESAMPLES, rows)
    ]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return Interval(value=value, low=float(low), high=float(high))


def welch(values: Sequence[float], others: Sequence[float]) -> Interval:
    """Of mean(values) - mean(others), both independent, of unequal spread (Welch). Raises ValueError where one is empty."""
    if not values or not others:
        raise ValueError("a difference needs values on both sides")
    difference = statistics.fmean(values) - statistics.fmean(others)
    if min(len(values), len(others)) < 2:
        return Interval(value=difference, low=None, high=None)
    errors = [statistics.variance(side) / len(side) for side in (values, others)]
    total = sum(errors)
    if total == 0:
        return Interval(value=difference, low=difference, high=difference)
    freedom = total**2 / sum(e**2 / (len(side) - 1) for e, side in zip(errors, (values, others), strict=True))
    spread = student_point(freedom) * math.sqrt(total)
    return Interval(value=difference, low=difference - spread, high=difference + spread)
