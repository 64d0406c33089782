"""Two evaluations of the same items, compared item by item. Pure.

The interval of the mean difference is Student's over the items' differences, within what scores can differ; where all items differ alike their
spread says nothing of others, and there is none. The probability is the exact two-sided sign test's over items whose
scores differ (for scores of 0 and 1 McNemar's exact test).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from abruzzi.contracts.evaluation import ItemPair, PairedOut
from abruzzi.contracts.interval import student

FEWEST = 5
"""Common items below which nothing is said of others."""


def compare(a: Mapping[str, float | None], b: Mapping[str, float | None]) -> PairedOut:
    """Scores by item; b minus a. Items that one of them lacks, or that have no score, are counted and left out."""
    common = [(item, x, y) for item, x in a.items() if x is not None and (y := b.get(item)) is not None]
    differences = [y - x for _, x, y in common]
    better, worse = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    mean = student(differences) if differences else None
    low = high = None
    if mean is not None and len(differences) >= FEWEST and len(set(differences)) > 1:
        assert mean.low is not None
        assert mean.high is not None
        low, high = max(-1.0, mean.low), min(1.0, mean.high)
    changed = sorted(
        ((item, x, y) for item, x, y in common if x != y), key=lambda found: (found[2] - found[1], found[0])
    )
    return PairedOut(
        items=len(common),
        left_out=len(a.keys() | b.keys()) - len(common),
        difference=mean.value if mean is not None else None,
        low=low,
        high=high,
        better=better,
        worse=worse,
        p_value=sign_test(better, worse),
        changed=[ItemPair(item=item, a=x, b=y) for item, x, y in changed],
    )


def sign_test(better: int, worse: int) -> float:
    """Two-sided, exact: how likely so uneven a split is where both are alike."""
    n, fewer = better + worse, min(better, worse)
    if n == 0 or better == worse:
        return 1.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2) for k in range(fewer + 1)
    ]
    top = max(logs)
    return min(1.0, 2 * math.exp(top) * math.fsum(math.exp(value - top) for value in logs))
