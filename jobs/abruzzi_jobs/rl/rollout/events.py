"""What the rollout scheduler is told, and what it wants done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from abruzzi.contracts.rollout import Status

# Events


@dataclass(frozen=True, slots=True)
class Begin:
    """An iteration begins, whose weights are this version of the policy."""

    version: int
    served: int | None = None
    """What the engine has as yet, where rollouts are ahead of training; absent: the same."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """The engine serves this version from now on, in the middle of an iteration."""

    version: int


@dataclass(frozen=True, slots=True)
class Offered:
    """Groups that `Draw` asked for. Fewer than asked: the source has no more."""

    groups: tuple[str, ...]


class Cause(StrEnum):
    """Of a trajectory that stands still."""

    ASKED = "asked"
    """By `Pause` or `Preempt`."""
    CAP = "cap"
    """It used up its tokens of this iteration."""


@dataclass(frozen=True, slots=True)
class Stood:
    """A trajectory is paused; its environment's session is open."""

    member: str
    dispatch: int
    cause: Cause = Cause.ASKED


@dataclass(frozen=True, slots=True)
class Ended:
    """A trajectory has ended; an engine's failure may still be tried again."""

    member: str
    dispatch: int
    status: Status


@dataclass(frozen=True, slots=True)
class Used:
    """Fraction of the engine's cache, 0 to 1."""

    cache: float


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: deadlines and leases."""


@dataclass(frozen=True, slots=True)
class Halt:
    """The process is to end (SIGTERM): pause, and keep everything for another."""


@dataclass(frozen=True, slots=True)
class Stop:
    """No more iterations."""


Event = Begin | Renewed | Offered | Stood | Ended | Used | Tick | Halt | Stop

# Commands


@dataclass(frozen=True, slots=True)
class Draw:
    """Offer so many new groups."""

    count: int


@dataclass(frozen=True, slots=True)
class Play:
    """Begin a trajectory, or go on with it. What is reported of it bears this number: older reports are of no interest any more."""

    member: str
    dispatch: int
    is_resumed: bool


@dataclass(frozen=True, slots=True)
class Pause:
    """All that run: the iteration has what it needs."""


@dataclass(frozen=True, slots=True)
class Preempt:
    """Pause one: the cache is full."""

    member: str
    dispatch: int


@dataclass(frozen=True, slots=True)
class Release:
    """Close the environment's session of a paused trajectory: its lease is over. It is replayed when the trajectory goes on."""

    member: str


@dataclass(frozen=True, slots=True)
class End:
    """For good, exactly once for each trajectory that was ever played. `by` the scheduler: whatever still runs of it is ended and not heard."""

    member: str
    status: Status
    is_by_scheduler: bool = False


@dataclass(frozen=True, slots=True)
class Drop:
    """A group that will not be trained on."""

    group: str
    reason: str


@dataclass(frozen=True, slots=True)
class Complete:
    """The iteration's groups, oldest first; nothing runs any more."""

    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Halted:
    """After `Halt`: nothing runs any more, and no groups are handed out."""


Command = Draw | Play | Pause | Preempt | Release | End | Drop | Complete | Halted

# What outlives a process


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownGroup:
    """A group that an earlier process began: `members` have ended with a status, or stand (None); those that are not named were never played."""

    id: str
    born: int | None
    """Policy version of its first token; None while it has none."""
    members: Mapping[int, Status | None] = field(default_factory=dict)
