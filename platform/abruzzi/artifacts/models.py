"""Tables of artifacts and their lineage."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, ForeignKeyConstraint, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from abruzzi.kit.db import Base


class ArtifactRow(Base):
    __tablename__ = "artifacts"
    __table_args__ = (
        UniqueConstraint("id", "project_id"),
        ForeignKeyConstraint(["run_id", "stage_id"], ["stages.run_id", "stages.id"]),
        ForeignKeyConstraint(["run_id", "project_id"], ["runs.id", "runs.project_id"]),
    )

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    project_id: Mapped[str] = mapped_column(Text)
    run_id: Mapped[str] = mapped_column(Text)
    stage_id: Mapped[str] = mapped_column(Text)
    attempt_id: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    step: Mapped[int | None] = mapped_column(BigInteger)
    epoch: Mapped[int]
    digest: Mapped[str] = mapped_column(Text)
    manifest_key: Mapped[str] = mapped_column(Text, unique=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    meta: Mapped[dict[str, Any]] = mapped_column(JSONB)
    verified_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    corrupt_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When it was found damaged; nothing is bound to it or resumed from it any more."""
    checked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When its digests were last read again, whatever came out."""
    checked_files: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    """How far a check has come that is not finished."""
    deleted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    purged_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    """When its files were removed from the object store, after it was marked deleted."""
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class ArtifactParentRow(Base):
    __tablename__ = "artifact_parents"
    __table_args__ = (
        ForeignKeyConstraint(["artifact_id", "project_id"], ["artifacts.id", "artifacts.project_id"]),
        ForeignKeyConstraint(["parent_id", "project_id"], ["artifacts.id", "artifacts.project_id"]),
    )

    artifact_id: Mapped[str] = mapped_column(Text, primary_key=True)
    parent_id: Mapped[str] = mapped_column(Text, primary_key=True)
    project_id: Mapped[str] = mapped_column(Text)
