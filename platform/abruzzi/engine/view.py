"""What the engine sees: a run as Postgres remembers it, and workloads as an executor observes them. Plain frozen data, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from abruzzi.contracts.reason import Reason
from abruzzi.contracts.states import AttemptState, Cause, RunState, StageState


class Desired(StrEnum):
    RUN = "run"
    CANCEL = "cancel"
    """A person asked for the end."""
    INTERRUPT = "interrupt"
    """The embedded platform is going down: save, stop, continue at the next start."""


@dataclass(frozen=True, slots=True)
class RankBeat:
    """Newest heartbeat of a rank, by the observer's clock."""

    step: int
    phase: str
    at: float
    """Unix seconds when it was received (or the file's time), comparable with `now`."""


@dataclass(frozen=True, slots=True)
class AttemptView:
    id: str
    number: int
    epoch: int
    state: AttemptState
    created_at: float
    cause: Cause | None = None
    exit_code: int | None = None
    reason: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    stop_requested_at: float | None = None
    stop_cause: Cause | None = None
    """Why it was asked to stop (hang, cancelled, preemption): becomes its cause when it ends."""
    stacks_requested_at: float | None = None
    node: str | None = None
    workload_removed: bool = False
    beats: Mapping[int, RankBeat] = field(default_factory=dict)
    """From the database (posted over HTTP)."""
    resume_step: int | None = None
    world_size: int | None = None
    """None: as many ranks as the stage asks for."""
    resize_to: int | None = None
    """Ranks that the next attempt has, where this one was stopped for that."""
    held_at: float | None = None
    """Since when quota or nodes are its own."""
    waits_for: Reason | None = None


@dataclass(frozen=True, slots=True)
class Elastic:
    """What a stage says about the number of its ranks (contracts/training.py, ElasticConfig)."""

    widths: tuple[int, ...]
    """Ranks that it can run with, the most first."""
    narrow_after: float
    """Seconds, as below."""
    widen_after: float


@dataclass(frozen=True, slots=True)
class StageView:
    id: str
    state: StageState
    needs: tuple[str, ...] = ()
    gate: str | None = None
    """`<stage>.<fact> <= <number>` over the meta of the needed stages' artifacts."""
    gate_override: str | None = None
    """Who let it start although its gate does not hold, and why: a sentence."""
    max_attempts: int = 3
    """Attempts that count against the budget; free retries (infrastructure, node, preemption) do not."""
    world_size: int = 1
    not_before: float | None = None
    attempts: tuple[AttemptView, ...] = ()
    """Of this revision: attempts before a person's retry are not in the view and do not count."""
    attempts_before: int = 0
    """How many there were before: numbers go on from there."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """Numeric meta of the artifacts it made: what gates look at."""
    phase_seconds: Mapping[str, float] = field(default_factory=dict)
    """p99 of the time between two steps, by phase, from past heartbeats; deadlines fit themselves from it."""
    hang_seconds: float | None = None
    """A fixed deadline from the recipe, instead of the fitted one."""
    elastic: Elastic | None = None

    def ranks_of(self, attempt: AttemptView) -> int:
        return attempt.world_size or self.world_size


@dataclass(frozen=True, slots=True)
class RunView:
    id: str
    state: RunState
    desired: Desired
    version: int
    """Optimistic lock: every write names the version that it was decided on."""
    stages: tuple[StageView, ...]
    last_epoch: int = 0
    """Highest epoch ever issued to an attempt of this run."""


class Phase(StrEnum):
    """State of a workload as an executor reports it."""

    PENDING = "pending"
    """Exists, no process yet (queued, image pull)."""
    RUNNING = "running"
    EXITED = "exited"
    GONE = "gone"
    """Known not to exist (not: not seen). With a committed intent and no outcome this means that create never happened or the object was deleted."""
    UNKNOWN = "unknown"
    """The executor could not tell (node silent, API unreachable). Never grounds for a decision other than to wait."""


@dataclass(frozen=True, slots=True)
class Leave:
    """An attempt should save and go on on other nodes."""

    cause: Cause
    """`preemption`: people want the node; `node`: it is sick, and the next attempt avoids it."""
    reason: str
    node: str


@dataclass(frozen=True, slots=True)
class Seen:
    """One observation of one workload."""

    phase: Phase
    exit_code: int | None = None
    out_of_memory: bool = False
    """The cgroup's counter or the kubelet's reason says so; never guessed from 137."""
    node_lost: bool = False
    reason: str | None = None
    failed_rank: int | None = None
    """Whose end is the attempt's, where the executor can tell: its log says why."""
    node: str | None = None
    held_since: float | None = None
    """Since when the workload holds quota or nodes, where somebody else gives them; None: nothing yet, or nobody gives."""
    waits_for: Reason | None = None
    """What `reason` is about while it is PENDING."""
    room: int | None = None
    """Ranks of its stage that have a place now, those that it has itself among them. An estimate; None: the executor cannot tell."""
    beats: Mapping[int, RankBeat] = field(default_factory=dict)
    """Of ranks whose word the executor hears by itself (from files)."""
    ended_ranks: frozenset[int] = frozenset()
    """Ranks whose process has ended while others run."""
    heard_since: float | None = 0.0
    """Since when the API has answered without a break: what ranks say over HTTP alone can have been heard since then. None: it is away."""
    stacks_ready: bool = False
    unknown_since: float | None = None
    """Of an executor that can tell: since when it knows nothing."""
    rings: bool = False
    """The executor rings when it would say something else: nobody needs to look every second."""
    leave: Leave | None = None
    observed_at: float = 0.0
