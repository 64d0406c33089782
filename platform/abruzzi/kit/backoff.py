"""How long to wait before the next try: exponential with jitter, so that many that failed together do not come back together."""

from __future__ import annotations

from collections.abc import Callable


def delay_seconds(tries: int, *, first: float, most: float, random: Callable[[], float]) -> float:
    """After the `tries`-th failure (1 is the first): between half and all of `first` × 2^(tries - 1), `most` at most. `random` is in [0, 1)."""
    whole = min(most, first * 2.0 ** min(max(tries, 1) - 1, 40))
    return whole * (0.5 + 0.5 * random())
