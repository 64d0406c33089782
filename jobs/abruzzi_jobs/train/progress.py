"""What people see while it trains: one line every few seconds, an honest rate, the time left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

_WINDOW_STEPS = 50
_LINE_SECONDS = 5.0


class Pace:
    """Tokens a second and time left, by the last steps' wall time: saving and held-out looks count, as they do for whoever waits."""

    def __init__(self, total_steps: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._total_steps, self._clock = total_steps, clock
        self._marks: deque[tuple[float, int, int]] = deque(maxlen=_WINDOW_STEPS + 1)
        self._line_at: float | None = None

    def mark(self, step: int, tokens: int) -> None:
        """After `step` steps and `tokens` tokens."""
        self._marks.append((self._clock(), step, tokens))

    @property
    def tokens_per_second(self) -> float:
        if len(self._marks) < 2:
            return 0.0
        (began, _, first), (now, _, last) = self._marks[0], self._marks[-1]
        return (last - first) / max(now - began, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """None before two marks."""
        if len(self._marks) < 2:
            return None
        (began, first, _), (now, last, _) = self._marks[0], self._marks[-1]
        return (now - began) / max(1, last - first) * (self._total_steps - last)

    def line_is_due(self) -> bool:
        """Every few seconds, and first at once."""
        now = self._clock()
        if self._line_at is not None and now - self._line_at < _LINE_SECONDS:
            return False
        self._line_at = now
        return True


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    whole = round(seconds)
    for unit, name, smaller, smaller_name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // smaller} {smaller_name}"
    return f"{whole} s"
