"""Which rank is slow: data-parallel ranks do the same work, so that one whose own part of a step lasts longer than the others' holds all of them up.

What a step takes is the same for all, since they wait for each other; what tells is each rank's time up to where it begins to wait.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

WINDOW_STEPS = 20
SLOWDOWN = 1.2
"""Of a straggler, at least: below that it costs less than to move it."""
Z_SCORE = 4.0
_LEAST_DEVIATION = 0.02
"""Of the others' times, relative: two ranks that agree to the microsecond would make anything conspicuous."""
_SIGMA_OF_MAD = 1.4826
"""Standard deviations of a normal distribution in its median absolute deviation."""


class Stopwatch:
    """Of work on a device, without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._seconds = self._began = 0.0
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if self._is_cuda else []
        self._has_stopped = False

    def start(self) -> None:
        self._has_stopped = False
        if self._is_cuda:
            self._events[0].record()
        self._began = time.perf_counter()

    def stop(self) -> None:
        self._has_stopped = True
        if self._is_cuda:
            self._events[1].record()
        else:
            self._seconds = time.perf_counter() - self._began

    def read(self) -> float:
        """Seconds of the last interval whose end the device has come to; 0 before the first."""
        if self._is_cuda and self._has_stopped and self._events[1].query():
            self._seconds = self._events[0].elapsed_time(self._events[1]) / 1e3
        return self._seconds


@dataclass(frozen=True)
class Straggler:
    rank: int
    slowdown: float
    """Its time over the others' median."""
    z_score: float
    """Standard deviations of the others' times that it lies above them."""


class StragglerWatch:
    def __init__(self, ranks: int) -> None:
        self._ranks = ranks
        self._steps: deque[tuple[float, ...]] = deque(maxlen=WINDOW_STEPS)

    def note(self, seconds: Sequence[float]) -> Straggler | None:
        """`seconds` of each rank's own work in one step. The slowest rank, if it was one over the last WINDOW_STEPS: by the median of its
        steps, so that a slow moment is none."""
        if self._ranks < 2 or min(seconds, default=0.0) <= 0:
            return None
        self._steps.append(tuple(seconds))
        if len(self._steps) < WINDOW_STEPS:
            return None
        rank = max(range(self._ranks), key=lambda r: statistics.median(step[r] for step in self._steps))
        slowdowns, others = [], []
        for step in self._steps:
            rest = [one for r, one in enumerate(step) if r != rank]
            usual = statistics.median(rest)
            slowdowns.append(step[rank] / usual)
            others += [one / usual for one in rest]
        slowdown, centre = statistics.median(slowdowns), statistics.median(others)
        deviation = _SIGMA_OF_MAD * statistics.median(abs(one - centre) for one in others)
        found = Straggler(rank, slowdown, (slowdown - centre) / max(deviation, _LEAST_DEVIATION))
        return found if found.slowdown >= SLOWDOWN and found.z_score >= Z_SCORE else None
