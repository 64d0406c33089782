"""How many trajectories are played at once: as many as the engine's cache holds. Pure: additive growth, multiplicative retreat.

The bounds are those that prime-rl found for vLLM's cache (reference/rl.md 1.2): room to grow below 60 %, retreat above 80 %, above 90 % at once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyPolicy:
    least: int = 1
    most: int = 256
    """Trajectories."""
    start: int = 64
    """At first; `most`, where that is less."""
    grow: int = 8
    """Trajectories more, each time there is room and somebody waits."""
    shrink: float = 0.75
    """Factor."""
    room_below: float = 0.6
    """Use of the cache, 0 to 1."""
    retreat_above: float = 0.8
    preempt_above: float = 0.9
    interval_s: float = 2.0
    """Between two changes: a change shows in the cache only when prompts are computed or trajectories have ended."""

    def __post_init__(self) -> None:
        if not 1 <= self.least <= min(self.start, self.most):
            raise ValueError(f"concurrency: least is {self.least}; give 1 to {min(self.start, self.most)}")
        if not 0 < self.room_below < self.retreat_above < self.preempt_above <= 1:
            raise ValueError(
                "concurrency: 0 < room_below < retreat_above < preempt_above <= 1, not "
                f"{self.room_below}, {self.retreat_above}, {self.preempt_above}"
            )
        if not 0 < self.shrink < 1:
            raise ValueError(f"concurrency: shrink is {self.shrink}; give a factor between 0 and 1")


class Concurrency:
    def __init__(self, policy: ConcurrencyPolicy) -> None:
        self.policy, self.limit = policy, min(policy.start, policy.most)
        self._changed_at: float | None = None

    def used(self, fraction: float, *, running: int, waiting: int, now: float) -> int:
        """Of the cache, `fraction`. How many of the running trajectories are to be paused right now; 0 but in need.

        A limit that is not reached is no evidence of room, so it grows only where it holds somebody back.
        """
        policy = self.policy
        if self._changed_at is not None and now - self._changed_at < policy.interval_s:
            return 0
        before = self.limit
        if fraction > policy.retreat_above:
            self.limit = max(policy.least, int(min(self.limit, max(running, policy.least)) * policy.shrink))
        elif fraction < policy.room_below and waiting and running >= self.limit:
            self.limit = min(policy.most, self.limit + policy.grow)
        if self.limit != before:
            self._changed_at = now
        return max(0, running - self.limit) if fraction > policy.preempt_above else 0
