"""Which rank is slow: one whose own part of a step lasts longer than that of the ranks that do the same work, or, where none does, than it used to.

What a step takes is the same for all, since they wait for each other; what tells is each rank's time without its waits (distributed/stopwatch.py).
Data-parallel ranks do the same work, also those of one pipeline stage with the same experts. A rank that has its stage to itself is compared with its
own past, in shares of what the others take: a step that is long for all is nobody's fault.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

WINDOW_STEPS = 20
PAST_STEPS = 80
"""Before the window, of a rank that nobody is like; a window's worth of them is enough to begin with."""
SLOWDOWN = 1.2
"""Of a straggler, at least: below that it costs less than to move it."""
Z_SCORE = 4.0
_LEAST_DEVIATION = 0.02
"""Relative: two ranks that agree to the microsecond would make anything conspicuous."""
_SIGMA_OF_MAD = 1.4826
"""Standard deviations of a normal distribution in its median absolute deviation."""


@dataclass(frozen=True, slots=True)
class _Step:
    seconds: tuple[float, ...]
    shares: tuple[float, ...]
    """Of each rank, its seconds over the median of the others'."""


@dataclass(frozen=True)
class Straggler:
    rank: int
    slowdown: float
    """Its time over what is expected of it."""
    z_score: float
    """Standard deviations that it lies above that."""
    expected_by: str
    """What says so, in words: it takes so many times as long as …"""


class StragglerWatch:
    def __init__(self, shares: Sequence[int]) -> None:
        """Of each rank, the number of its share of the model: ranks of the same do the same work."""
        members: dict[int, list[int]] = {}
        for rank, share in enumerate(shares):
            members.setdefault(share, []).append(rank)
        self._alike = [ranks for ranks in members.values() if len(ranks) > 1]
        self._alone = [ranks[0] for ranks in members.values() if len(ranks) == 1]
        self._ranks = len(shares)
        self._work: Hashable = None
        self._steps: deque[_Step] = deque(maxlen=WINDOW_STEPS)
        self._past: deque[_Step] = deque(maxlen=PAST_STEPS)

    def note(self, seconds: Sequence[float], *, work: Hashable = None) -> Straggler | None:
        """`seconds` of each rank's own work in one step; `work`: what the step was of (other lengths are other work, and begin anew). The slowest rank,
        if it was a straggler over the last WINDOW_STEPS: by the median of its steps, so that a slow moment is none."""
        if self._ranks < 2 or min(seconds, default=0.0) <= 0:
            return None
        if work != self._work:
            self._work = work
            self._steps.clear()
            self._past.clear()
        leaving = self._steps[0] if len(self._steps) == WINDOW_STEPS else None
        self._steps.append(_Step(tuple(seconds), _shares(seconds)))
        if len(self._steps) < WINDOW_STEPS:
            return None
        found = [_slowest_of(ranks, self._steps, whole=len(ranks) == self._ranks) for ranks in self._alike]
        if len(self._past) >= WINDOW_STEPS:
            found += [_against_past(rank, self._steps, self._past) for rank in self._alone]
        slow = [one for one in found if one.slowdown >= SLOWDOWN and one.z_score >= Z_SCORE]
        if leaving is not None and not slow:  # what is slow must not become what is expected
            self._past.append(leaving)
        return max(slow, key=lambda one: one.slowdown, default=None)


def _slowest_of(ranks: Sequence[int], steps: Sequence[_Step], *, whole: bool) -> Straggler:
    """Of ranks that do the same work."""
    rank = max(ranks, key=lambda r: statistics.median(step.seconds[r] for step in steps))
    slowdowns, others = [], []
    for step in steps:
        rest = [step.seconds[r] for r in ranks if r != rank]
        usual = statistics.median(rest)
        slowdowns.append(step.seconds[rank] / usual)
        others += [one / usual for one in rest]
    slowdown, centre = statistics.median(slowdowns), statistics.median(others)
    than = "the others" if whole else "the other ranks of its pipeline stage"
    return Straggler(rank, slowdown, (slowdown - centre) / _deviation(others, centre), than)


def _against_past(rank: int, steps: Sequence[_Step], past: Sequence[_Step]) -> Straggler:
    """By its share of the others' time, and by its own: where the others became faster, its share rises, too."""
    then = [step.shares[rank] for step in past]
    usual = statistics.median(then)
    by_share = statistics.median(step.shares[rank] for step in steps) / usual
    now, before = (statistics.median(step.seconds[rank] for step in found) for found in (steps, past))
    relative = [one / usual for one in then]
    return Straggler(rank, min(by_share, now / before), (by_share - 1) / _deviation(relative, 1.0), "it used to")


def _shares(seconds: Sequence[float]) -> tuple[float, ...]:
    """By one sort for all ranks: there are hundreds of them."""
    order = sorted(range(len(seconds)), key=seconds.__getitem__)
    middle, is_odd = divmod(len(seconds) - 1, 2)  # of the others
    found = [0.0] * len(seconds)
    for place, rank in enumerate(order):
        above, below = (seconds[order[at + (at >= place)]] for at in (middle, middle if is_odd else middle - 1))
        found[rank] = seconds[rank] / ((above + below) / 2)
    return tuple(found)


def _deviation(values: Sequence[float], centre: float) -> float:
    return max(_SIGMA_OF_MAD * statistics.median(abs(one - centre) for one in values), _LEAST_DEVIATION)
