"""A rank's own work in a step: what it computes, without what it waits for others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Of a device, without waiting for it: intervals between `start` and `stop`, added up."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._runs = False
        self._began = self._sum = self._known = 0.0
        self._events: list[torch.cuda.Event] = []
        self._marks = 0

    def begin(self) -> None:
        """A new sum."""
        self._sum, self._marks = 0.0, 0

    def start(self) -> None:
        self._runs = True
        if self._is_cuda:
            self._mark()
        self._began = time.perf_counter()

    def stop(self) -> None:
        self._runs = False
        if self._is_cuda:
            self._mark()
        else:
            self._sum += time.perf_counter() - self._began

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """While others are waited for."""
        runs = self._runs
        if runs:
            self.stop()
        try:
            yield
        finally:
            if runs:
                self.start()

    def read(self) -> float:
        """Seconds since `begin`. On an accelerator that has not come to their end yet: those of the last time that it had; 0 before the first."""
        if not self._is_cuda:
            return self._sum
        if self._marks and self._events[self._marks - 1].query():
            pairs = zip(self._events[: self._marks : 2], self._events[1 : self._marks : 2], strict=True)
            self._known = sum(one.elapsed_time(two) for one, two in pairs) / 1e3
        return self._known

    def _mark(self) -> None:
        if self._marks == len(self._events):
            self._events.append(torch.cuda.Event(enable_timing=True))
        self._events[self._marks].record()
        self._marks += 1
