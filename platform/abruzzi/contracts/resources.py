"""Resources as the API serves them and the SDK returns them. No defaults: what the API promises is always there.

Timestamps are RFC 3339 in UTC. Lists are `Page[T]`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from abruzzi.contracts.states import ArtifactKind, AttemptState, Cause, Role, RunState, StageKind, StageState

T = TypeVar("T")


class Resource(BaseModel):
    model_config = ConfigDict(frozen=True)


class Page(Resource, Generic[T]):
    items: list[T]
    next_cursor: str | None


class ProjectOut(Resource):
    id: str
    """Slug, such as `default`."""
    name: str
    created_at: datetime


class RankOut(Resource):
    rank: int
    step: int
    total_steps: int | None
    phase: str
    progress: float | None
    message: str
    heartbeat_at: datetime


class AttemptOut(Resource):
    id: str
    run_id: str
    stage_id: str
    number: int
    epoch: int
    state: AttemptState
    cause: Cause | None
    exit_code: int | None
    reason: str | None
    """One sentence for people."""
    failed_rank: int | None
    """The rank that failed first or stood still, where that is known: its log says why."""
    resumed_from: str | None
    """Artifact id of the checkpoint that it resumed from."""
    world_size: int | None
    """Its ranks, where they are fewer than the stage asks for (`elastic`)."""
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    ranks: list[RankOut]


class StageOut(Resource):
    id: str
    run_id: str
    kind: StageKind
    state: StageState
    reason: str | None
    needs: list[str]
    gate: str | None
    config: dict[str, Any]
    progress: float | None
    """0 to 1, from the newest attempt's ranks."""
    eta_seconds: float | None
    started_at: datetime | None
    ended_at: datetime | None
    not_before: datetime | None
    """Backing off until then."""
    attempts: list[AttemptOut]


class RunSummary(Resource):
    id: str
    project_id: str
    name: str
    recipe_name: str
    state: RunState
    reason: str | None
    parent_run_id: str | None
    stages: list[dict[str, str]]
    """[{"id", "kind", "state"}] in recipe order, for the little state strip of the list."""
    progress: float | None
    eta_seconds: float | None
    """Of the running stage that needs longest."""
    headline: dict[str, float]
    """Last value of the keys that people look for first, such as {"train/loss": 2.1, "bits_per_byte": 1.9}."""
    created_by: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class RunOut(RunSummary):
    version: int
    """The ETag."""
    recipe: dict[str, Any]
    """Resolved."""
    recipe_toml: str
    """As submitted, with the overrides written into it."""
    detail: list[StageOut]
    parent_artifact_id: str | None


class ArtifactOut(Resource):
    id: str
    project_id: str
    run_id: str
    stage_id: str
    attempt_id: str
    kind: ArtifactKind
    name: str
    step: int | None
    digest: str
    manifest_key: str
    size_bytes: int
    meta: dict[str, Any]
    parents: list[str]
    """Ids of the artifacts that it was made from."""
    verified_at: datetime | None
    corrupt_at: datetime | None
    """Found damaged: nothing is bound to it or resumed from it any more."""
    deleted_at: datetime | None
    """Retention removed its files; the record stays."""
    created_at: datetime


class EventOut(Resource):
    id: str
    """Position in the log, also the SSE id."""
    run_id: str | None
    kind: str
    """Such as `run.state`, `stage.state`, `attempt.state`, `artifact.created`."""
    body: dict[str, Any]
    at: datetime


class SeriesOut(Resource):
    """One curve. With `tier` above 1 each point covers `tier` steps, and `low` and `high` are the exact extrema: no spike is lost."""

    attempt_id: str
    stage_id: str
    key: str
    tier: int
    interval: float
    """Mean steps between two points of the whole curve, whatever was asked for: the unit in which smoothing counts."""
    steps: list[int]
    values: list[float | None]
    """Last value of each bucket."""
    low: list[float | None]
    high: list[float | None]
    means: list[float | None]
    """Mean of each bucket's finite values: what is smoothed."""
    at: list[float]
    non_finite: list[int]
    """Steps whose value was NaN or infinite."""


class MetricKeyOut(Resource):
    stage_id: str
    key: str
    last_step: int
    last_value: float | None


class LogLine(Resource):
    offset: int
    """Byte offset of the line's start in the rank's log: the permalink."""
    text: str


class LogPage(Resource):
    attempt_id: str
    rank: int
    lines: list[LogLine]
    next_offset: int
    end_offset: int
    """Bytes known so far; equal to next_offset when the reader has caught up."""
    complete: bool
    """The attempt has ended and nothing more will come."""


class TokenOut(Resource):
    id: str
    project_id: str
    name: str
    role: Role
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None


SHOWN_ONCE = "shown once"
"""In place of a secret, where an answer is given again."""


class TokenCreated(TokenOut):
    token: str
    """Shown once."""


class ProjectCreated(ProjectOut):
    admin: TokenCreated
    """The project's first admin: makes all other tokens of it."""


class AuditOut(Resource):
    id: str
    actor: str
    action: str
    object: str
    outcome: str
    at: datetime


class Problem(Resource):
    """RFC 9457, with `code`, `hint` and `errors`."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    hint: str | None
    errors: list[dict[str, Any]]
    trace_id: str
