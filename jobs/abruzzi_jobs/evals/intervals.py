"""Confidence intervals, 95 %: Wilson's for shares, bootstrap over documents for ratios."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
MIN_DOCUMENTS = 5
"""Fewer say nothing about others: resampling one document gives an interval of no width."""
_Z_95 = 1.959963984540054


@dataclass(frozen=True, kw_only=True)
class Interval:
    value: float
    low: float | None
    """None, as `high`: too few documents for an interval."""
    high: float | None


def wilson(successes: int, trials: int) -> Interval:
    """Of a share. Raises ValueError without trials."""
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} of {trials} is no share")
    share, z2 = successes / trials, _Z_95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    spread = _Z_95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return Interval(value=share, low=max(0.0, centre - spread), high=min(1.0, centre + spread))


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
