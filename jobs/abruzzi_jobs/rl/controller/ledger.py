"""Where an iteration's wall time and memory went: seconds by cause, which sum to the wall time because one cause holds at any moment; memory by phase."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import torch

_CLEAR = Path("/proc/self/clear_refs")


class Cause(StrEnum):
    INFER = "infer"
    """The engine computes tokens."""
    ENVIRONMENT = "environment"
    """Nothing can be computed before an environment answers."""
    SCORE = "score"
    TRAIN = "train"
    SWITCH = "switch"
    """Between training and inference: memory given back, weights registered, sent and verified."""
    SAVE = "save"
    """The journal's writes and the stall of checkpoints."""
    EVALUATE = "evaluate"
    IDLE = "idle"
    """Everything else: nobody has anything to do that is known here."""


class TimeLedger:
    def __init__(self, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._seconds = dict.fromkeys(Cause, 0.0)
        self._cause = Cause.IDLE
        self._since = self._began = clock()

    @contextmanager
    def of(self, cause: Cause) -> Iterator[None]:
        """The time in the block is this cause's, but for inner blocks of other causes."""
        before = self._turn(cause)
        try:
            yield
        finally:
            self._turn(before)

    def move(self, seconds: float, source: Cause, target: Cause) -> None:
        """Of what has been counted so far, `seconds` at most belong to another cause (measured by others, inside a block)."""
        self._turn(self._cause)
        moved = min(max(0.0, seconds), self._seconds[source])
        self._seconds[source] -= moved
        self._seconds[target] += moved

    def take(self) -> tuple[dict[Cause, float], float]:
        """(seconds by cause, wall seconds) since the last call."""
        self._turn(self._cause)
        taken = self._seconds
        self._seconds = dict.fromkeys(Cause, 0.0)
        began, self._began = self._began, self._since
        return taken, self._since - began

    def _turn(self, cause: Cause) -> Cause:
        now = self._clock()
        self._seconds[self._cause] += now - self._since
        before, self._cause, self._since = self._cause, cause, now
        return before


class MemoryLedger:
    """The peak of each phase: of the device where there is one, else of this process (resident)."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._peaks: dict[str, int] = {}

    def mark(self, phase: str) -> None:
        """`phase` has ended; the next one begins to be measured."""
        self._peaks[phase] = max(self._peaks.get(phase, 0), self._peak())

    def take(self) -> dict[str, int]:
        """Bytes by phase since the last call."""
        peaks, self._peaks = self._peaks, {}
        return peaks

    def _peak(self) -> int:
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            return peak
        return _resident_peak()


def _resident_peak() -> int:
    """VmHWM of /proc/self/status, set back where the kernel allows that; 0 where there is no such file (not Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    if os.access(_CLEAR, os.W_OK):  # without it, a peak is that of the process so far
        _CLEAR.write_text("5")
    return int(lines["VmHWM"].split()[0]) << 10
