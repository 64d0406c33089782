"""Confidence intervals, 95 %: Wilson's for shares, bootstrap over documents for ratios and over items for scores, Student's and Welch's for means over
seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from abruzzi.contracts.interval import Interval, wilson

__all__ = ["Interval", "mean", "ratio", "student", "welch", "wilson"]

RESAMPLES = 2000
MIN_DOCUMENTS = 5
"""Fewer say nothing about others: resampling one document gives an interval of no width."""
_DRAWN_AT_A_TIME = 1 << 20
_T_95 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
)  # fmt: skip
"""97.5 % points of Student's t, from one degree of freedom on."""


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


def student(values: Sequence[float]) -> Interval:
    """Of the mean of independent values, such as one a seed (Student's t). One value has no interval. Raises ValueError for none."""
    if not values:
        raise ValueError("a mean needs values")
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(value=mean, low=None, high=None)
    spread = _t_95(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(value=mean, low=mean - spread, high=mean + spread)


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
    spread = _t_95(freedom) * math.sqrt(total)
    return Interval(value=difference, low=difference - spread, high=difference + spread)


def _t_95(freedom: float) -> float:
    """The 97.5 % point of Student's t; between whole degrees of freedom the lower ones' (wider), beyond the table the last one's."""
    return _T_95[min(int(freedom), len(_T_95)) - 1]
