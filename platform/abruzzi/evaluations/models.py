"""Table of evaluations: a row a suite of a report, never changed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, ForeignKey, ForeignKeyConstraint, Integer, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from abruzzi.kit.db import Base


class EvaluationRow(Base):
    __tablename__ = "evaluations"
    __table_args__ = (
        UniqueConstraint("artifact_id", "suite"),
        ForeignKeyConstraint(["artifact_id", "project_id"], ["artifacts.id", "artifacts.project_id"]),
        ForeignKeyConstraint(["run_id", "project_id"], ["runs.id", "runs.project_id"]),
    )

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    project_id: Mapped[str] = mapped_column(Text, ForeignKey("projects.id"))
    run_id: Mapped[str] = mapped_column(Text)
    stage_id: Mapped[str] = mapped_column(Text)
    artifact_id: Mapped[str] = mapped_column(Text)
    """Of the report, which holds the answers."""
    suite: Mapped[str] = mapped_column(Text)
    """`name@version`."""
    target: Mapped[str] = mapped_column(Text)
    """A checkpoint's digest, or `<kind>:<model>` of an endpoint: what evaluations of the same target have in common."""
    target_detail: Mapped[dict[str, Any]] = mapped_column(JSONB)
    score: Mapped[float | None] = mapped_column(DOUBLE_PRECISION)
    items: Mapped[int] = mapped_column(Integer)
    summary: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
