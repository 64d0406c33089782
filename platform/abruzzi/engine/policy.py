"""Retry policy as data, one line a cause (design section 4.4)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from abruzzi.contracts.states import Cause


@dataclass(frozen=True, slots=True)
class RetryRule:
    retried: bool
    free: bool = False
    """Does not count against the stage's budget."""
    excludes_node: bool = False
    """The next attempt avoids the node where this one ended."""
    steps_back: bool = False
    """From an earlier checkpoint, further back each time that it happens at about the same point."""
    first_seconds: float = 1.0
    """Back-off before the first retry; doubles with each, up to `most_seconds`."""
    most_seconds: float = 300.0


RULES: dict[Cause, RetryRule] = {
    Cause.USER_ERROR: RetryRule(retried=False),
    Cause.BAD_DATA: RetryRule(retried=False),
    Cause.OUT_OF_MEMORY: RetryRule(retried=False),
    Cause.POISON: RetryRule(retried=False),
    Cause.CANCELLED: RetryRule(retried=False),
    Cause.INFRASTRUCTURE: RetryRule(retried=True, free=True, excludes_node=True),
    Cause.NODE: RetryRule(retried=True, free=True, excludes_node=True),
    # At once where the platform asked for it; a process that ends so by itself waits like any other (engine/decide.py, was_asked).
    Cause.PREEMPTION: RetryRule(retried=True, free=True),
    Cause.RESIZE: RetryRule(retried=True, free=True),
    Cause.HANG: RetryRule(retried=True),
    Cause.DIVERGENCE: RetryRule(retried=True, steps_back=True),
    Cause.UNKNOWN: RetryRule(retried=True, first_seconds=2.0),
}

POISON_AFTER = 20
"""So many attempts in a row that ended with a free cause without one new step: quarantined, so that nothing is retried for ever."""

MOST_EXCLUDED_NODES = 8
"""The newest ones: a service that is down for everybody must not talk the whole pool away."""

HANG_FACTOR = 10.0
"""Deadline = p99 of the phase's step times x this, and at least HANG_FLOOR_SECONDS."""
HANG_FLOOR_SECONDS = 60.0
HANG_UNKNOWN_SECONDS = 1800.0
"""For a phase without history: set-up, reading inputs, the first compile."""
STACKS_SECONDS = 10.0
"""How long a stack dump may take before the attempt is stopped without it."""
GRACE_SECONDS = 60.0
"""Between SIGTERM and SIGKILL: time for a just-in-time checkpoint."""
STOP_PATIENCE_SECONDS = 30.0
"""After the grace, before the stop is asked for again."""
OBSERVE_SECONDS = 1.0
"""How often a live workload is looked at when nothing rings: a stage's end waits half of it on average, and each look costs a few
milliseconds of a machine that also trains."""

BLIND_SECONDS = 15.0
"""After so long without sight of a workload people are told why. A watch that begins anew takes a second."""
RUNG_SECONDS = 5.0
"""Where the executor rings for all that it sees: only heartbeats and patience are left to be looked at."""
RUNG_SILENT_SECONDS = 60.0
"""And where no heartbeat is expected either: in case a ring was lost."""


def backoff_seconds(rule: RetryRule, failures: int, salt: str) -> float:
    """Exponential, with a jitter of 0 to 50 % that depends on `salt` alone: the same decision twice is the same date."""
    if failures <= 0:
        return 0.0
    plain = min(rule.most_seconds, rule.first_seconds * 2.0 ** min(failures - 1, 30))
    return plain * (1.0 + 0.5 * (zlib.crc32(salt.encode()) % 1000) / 1000)
