"""Tables of runs, stages, attempts and ranks."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, DateTime, ForeignKey, ForeignKeyConstraint, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from abruzzi.contracts.states import RunState
from abruzzi.kit.db import Base

Moment = DateTime(timezone=True)


class RunRow(Base):
    __tablename__ = "runs"
    ENDED: ClassVar = tuple(state for state in RunState if state.is_terminal)
    __table_args__ = (
        UniqueConstraint("id", "project_id"),
        ForeignKeyConstraint(["parent_run_id", "project_id"], ["runs.id", "runs.project_id"]),
    )

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    project_id: Mapped[str] = mapped_column(Text, ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(Text)
    recipe_name: Mapped[str] = mapped_column(Text)
    recipe: Mapped[dict[str, Any]] = mapped_column(JSONB)
    recipe_toml: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    desired: Mapped[str] = mapped_column(Text, default="run")
    version: Mapped[int] = mapped_column(default=1)
    """Optimistic lock and ETag."""
    revision: Mapped[int] = mapped_column(default=1)
    """Grows when a person retries an ended run: the one way out of a terminal state."""
    last_epoch: Mapped[int] = mapped_column(default=0)
    headline: Mapped[dict[str, float]] = mapped_column(JSONB, default=dict)
    parent_run_id: Mapped[str | None] = mapped_column(Text)
    parent_artifact_id: Mapped[str | None] = mapped_column(Text)
    created_by: Mapped[str] = mapped_column(Text)
    submission_key: Mapped[str | None] = mapped_column(Text, unique=True)
    """Of whoever may submit the same thing again without knowing that it did (submissions.py)."""
    created_at: Mapped[datetime] = mapped_column(Moment)
    started_at: Mapped[datetime | None] = mapped_column(Moment)
    ended_at: Mapped[datetime | None] = mapped_column(Moment)
    lease_token: Mapped[int] = mapped_column(BigInteger, default=0)
    lease_owner: Mapped[str | None] = mapped_column(Text)
    lease_expires_at: Mapped[datetime | None] = mapped_column(Moment)
    wake_at: Mapped[datetime | None] = mapped_column(Moment)
    """When a controller must look; NULL: only a ring wakes it."""


class StageRow(Base):
    __tablename__ = "stages"
    __table_args__ = (ForeignKeyConstraint(["run_id", "project_id"], ["runs.id", "runs.project_id"]),)

    run_id: Mapped[str] = mapped_column(Text, primary_key=True)
    id: Mapped[str] = mapped_column(Text, primary_key=True)
    project_id: Mapped[str] = mapped_column(Text)
    position: Mapped[int]
    kind: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    revision: Mapped[int] = mapped_column(default=1)
    needs: Mapped[list[str]] = mapped_column(ARRAY(Text))
    gate: Mapped[str | None] = mapped_column(Text)
    gate_override: Mapped[dict[str, str] | None] = mapped_column(JSONB)
    """{"by", "reason", "at"} of the person who lets the stage start although its gate does not hold."""
    config: Mapped[dict[str, Any]] = mapped_column(JSONB)
    bindings: Mapped[dict[str, dict[str, str]]] = mapped_column(JSONB)
    """{input: {"stage_id", "output", "kind"}}, or {"artifact_id", "kind"} in a branch."""
    world_size: Mapped[int]
    elastic: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    """{"widths", "narrow_after", "widen_after"} (engine/view.py, Elastic) of a stage whose number of ranks may change."""
    max_attempts: Mapped[int]
    attempts_before: Mapped[int] = mapped_column(default=0)
    """Attempts of earlier revisions, which no longer count against the budget."""
    hang_seconds: Mapped[float | None] = mapped_column(DOUBLE_PRECISION)
    not_before: Mapped[datetime | None] = mapped_column(Moment)
    facts: Mapped[dict[str, float]] = mapped_column(JSONB, default=dict)
    started_at: Mapped[datetime | None] = mapped_column(Moment)
    ended_at: Mapped[datetime | None] = mapped_column(Moment)


class AttemptRow(Base):
    __tablename__ = "attempts"
    __table_args__ = (
        ForeignKeyConstraint(["run_id", "stage_id"], ["stages.run_id", "stages.id"]),
        ForeignKeyConstraint(["run_id", "project_id"], ["runs.id", "runs.project_id"]),
        UniqueConstraint("run_id", "stage_id", "number"),
        UniqueConstraint("run_id", "epoch"),
        UniqueConstraint("id", "project_id"),
    )

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    project_id: Mapped[str] = mapped_column(Text)
    run_id: Mapped[str] = mapped_column(Text)
    stage_id: Mapped[str] = mapped_column(Text)
    number: Mapped[int]
    epoch: Mapped[int]
    state: Mapped[str] = mapped_column(Text)
    cause: Mapped[str | None] = mapped_column(Text)
    exit_code: Mapped[int | None]
    reason: Mapped[str | None] = mapped_column(Text)
    failed_rank: Mapped[int | None]
    spec: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    """Resolved once, at the first use, and never again: a repeated create is the same create."""
    resumed_from: Mapped[str | None] = mapped_column(Text)
    resume_step: Mapped[int | None] = mapped_column(BigInteger)
    checkpoints_back: Mapped[int] = mapped_column(default=0)
    excluded_nodes: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list)
    node: Mapped[str | None] = mapped_column(Text)
    world_size: Mapped[int | None]
    """NULL: as many ranks as the stage asks for."""
    resize_to: Mapped[int | None]
    """Ranks of the next attempt, where this one was stopped for that."""
    pool: Mapped[str | None] = mapped_column(Text)
    gpus: Mapped[int] = mapped_column(default=0)
    """That it asks for in all, as are the two below: what it holds from `held_at` to its end."""
    cpus: Mapped[float] = mapped_column(DOUBLE_PRECISION, default=0.0)
    memory: Mapped[int] = mapped_column(BigInteger, default=0)
    """Bytes."""
    held_at: Mapped[datetime | None] = mapped_column(Moment)
    """Since when quota, or nodes, are its own."""
    waits_for: Mapped[str | None] = mapped_column(Text)
    """Why it does not run yet (contracts/reason.py); `reason` says it in words."""
    stop_requested_at: Mapped[datetime | None] = mapped_column(Moment)
    stop_cause: Mapped[str | None] = mapped_column(Text)
    stacks_requested_at: Mapped[datetime | None] = mapped_column(Moment)
    workload_removed: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(Moment)
    started_at: Mapped[datetime | None] = mapped_column(Moment)
    ended_at: Mapped[datetime | None] = mapped_column(Moment)


class RankRow(Base):
    __tablename__ = "ranks"
    __table_args__ = (ForeignKeyConstraint(["attempt_id", "project_id"], ["attempts.id", "attempts.project_id"]),)

    attempt_id: Mapped[str] = mapped_column(Text, primary_key=True)
    rank: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[str] = mapped_column(Text)
    step: Mapped[int] = mapped_column(BigInteger)
    total_steps: Mapped[int | None] = mapped_column(BigInteger)
    phase: Mapped[str] = mapped_column(Text)
    progress: Mapped[float | None] = mapped_column(DOUBLE_PRECISION)
    message: Mapped[str] = mapped_column(Text)
    first_step: Mapped[int] = mapped_column(BigInteger)
    """Step and time of the phase's first heartbeat: the ETA's slope."""
    first_at: Mapped[datetime] = mapped_column(Moment)
    heartbeat_at: Mapped[datetime] = mapped_column(Moment)
    spent: Mapped[dict[str, dict[str, float]]] = mapped_column(JSONB, default=dict)
    """Seconds between heartbeats, by day (UTC) and phase: what usage is derived from."""
    phase_seconds: Mapped[dict[str, list[float]]] = mapped_column(JSONB, default=dict)
    """Seconds between two steps, the last 64, by phase: hang deadlines fit themselves from them."""
