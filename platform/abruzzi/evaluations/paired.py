"""Two evaluations of the same items, compared item by item. Pure.

The interval of the mean difference is Student's over the items' differences, within what scores can differ; where all items differ alike their
spread says nothing of others, and there is none. The probability is the exact two-sided sign test's over items whose
scores differ (for scores of 0 and 1 McNemar's exact test).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

from abruzzi.contracts.evaluation import ItemPair, PairedOut

FEWEST = 5
"""Common items below which nothing is said of others."""
_T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
          2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)  # fmt: skip
"""97.5 % points of Student's t, from one degree of freedom on; beyond, the normal distribution's is used, with the next term of its expansion."""
_Z_975 = 1.959963984540054


def compare(a: Mapping[str, float | None], b: Mapping[str, float | None]) -> PairedOut:
    """Scores by item; b minus a. Items that one of them lacks, or that have no score, are counted and left out."""
    common = [(item, x, y) for item, x in a.items() if x is not None and (y := b.get(item)) is not None]
    differences = [y - x for _, x, y in common]
    better, worse = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    mean = statistics.fmean(differences) if differences else None
    low = high = None
    if mean is not None and len(differences) >= FEWEST:
        spread = _t(len(differences) - 1) * statistics.stdev(differences) / math.sqrt(len(differences))
        low, high = (max(-1.0, mean - spread), min(1.0, mean + spread)) if spread > 0 else (None, None)
    changed = sorted(
        ((item, x, y) for item, x, y in common if x != y), key=lambda found: (found[2] - found[1], found[0])
    )
    return PairedOut(
        items=len(common),
        left_out=len(a.keys() | b.keys()) - len(common),
        difference=mean,
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


def _t(freedom: int) -> float:
    return _T_975[freedom - 1] if freedom <= len(_T_975) else _Z_975 + (_Z_975**3 + _Z_975) / (4 * freedom)
