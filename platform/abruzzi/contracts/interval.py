"""95 % intervals: Wilson's of a share, Student's of a mean. What tables, gates and comparisons are shown with. Pure, and without numpy."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

Z_95 = 1.959963984540054
_T_95 = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
"""97.5 % points of Student's t, from one degree of freedom on."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    value: float
    low: float | None
    """None, as `high`: too few documents for an interval."""
    high: float | None


def wilson(successes: int, trials: int) -> Interval:
    """Of a share (Wilson's score interval). Raises ValueError without trials."""
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} of {trials} is no share")
    share, z2 = successes / trials, Z_95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    spread = Z_95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return Interval(value=share, low=max(0.0, centre - spread), high=min(1.0, centre + spread))


def student(values: Sequence[float]) -> Interval:
    """Of the mean of independent values, such as one a seed (Student's t). One value has no interval. Raises ValueError for none."""
    if not values:
        raise ValueError("a mean needs values")
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(value=mean, low=None, high=None)
    spread = student_point(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(value=mean, low=mean - spread, high=mean + spread)


def student_point(freedom: float) -> float:
    """The 97.5 % point of Student's t; between whole degrees of freedom the lower ones' (wider). Beyond the table the normal distribution's, with the
    next term of its expansion."""
    if freedom < len(_T_95) + 1:
        return _T_95[int(freedom) - 1]
    return Z_95 + (Z_95**3 + Z_95) / (4 * freedom)
