"""What the engine can ask for. Writes go to Postgres, all of one decision in one transaction; effects go to an executor, after the commit.

Every effect is idempotent and named by intent, so that a crash before or after it is healed by deciding again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from abruzzi.contracts.reason import Reason
from abruzzi.contracts.states import AttemptState, Cause, RunState, StageState


@dataclass(frozen=True, slots=True)
class CreateAttempt:
    """Write: commit the intent of attempt `number` with fencing `epoch`. `checkpoints_back`: so many divergences in a row
    lie behind it, each of which it goes further back for."""

    stage_id: str
    number: int
    epoch: int
    checkpoints_back: int = 0
    excluded_nodes: tuple[str, ...] = ()
    world_size: int | None = None
    """None: as many ranks as the stage asks for."""


@dataclass(frozen=True, slots=True)
class SetAttempt:
    """Write: move an attempt. None leaves a field as it is; an empty reason takes the one away that no longer holds."""

    attempt_id: str
    state: AttemptState
    cause: Cause | None = None
    exit_code: int | None = None
    reason: str | None = None
    failed_rank: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    stop_requested_at: float | None = None
    stop_cause: Cause | None = None
    stacks_requested_at: float | None = None
    node: str | None = None
    workload_removed: bool | None = None
    held_at: float | None = None
    waits_for: Reason | Literal[""] | None = None
    """As with the reason, an empty one takes it away."""
    resize_to: int | None = None


@dataclass(frozen=True, slots=True)
class SetStage:
    stage_id: str
    state: StageState
    reason: str | None = None
    not_before: float | None = None


@dataclass(frozen=True, slots=True)
class SetRun:
    state: RunState
    reason: str | None = None


Write = CreateAttempt | SetAttempt | SetStage | SetRun


@dataclass(frozen=True, slots=True)
class CreateWorkload:
    """Effect: make the workload of a committed attempt. Exists with the same spec: adopt. Exists with another: SpecConflict."""

    attempt_id: str


@dataclass(frozen=True, slots=True)
class StopWorkload:
    """Effect: SIGTERM, so that it saves; SIGKILL after the grace."""

    attempt_id: str
    grace_seconds: float


@dataclass(frozen=True, slots=True)
class DumpStacks:
    """Effect: keep the stack of a stalled rank before the attempt is replaced."""

    attempt_id: str
    rank: int


@dataclass(frozen=True, slots=True)
class CollectArtifacts:
    """Effect, then write: register the manifests that the attempt committed and that Postgres does not know yet."""

    attempt_id: str


@dataclass(frozen=True, slots=True)
class RemoveWorkload:
    """Effect: forget the workload once its outcome is committed (logs shipped, finalizer lifted)."""

    attempt_id: str


Effect = CreateWorkload | StopWorkload | DumpStacks | CollectArtifacts | RemoveWorkload


@dataclass(frozen=True, slots=True)
class Decision:
    """Order: effects in `before` (artifacts must be known before a stage is called done), one transaction of `writes`, effects in `after`."""

    before: tuple[Effect, ...] = ()
    writes: tuple[Write, ...] = ()
    after: tuple[Effect, ...] = ()
    wake_at: float | None = None
    """When to look again even if nothing happens."""

    @property
    def is_quiet(self) -> bool:
        return not (self.before or self.writes or self.after)
