"""The 95 % interval of a share: what a table of passes and a gate's number are shown with. Pure, and without numpy."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z_95 = 1.959963984540054


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
