"""Tables of pools and of what waits in them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, ForeignKeyConstraint, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from abruzzi.kit.db import Base


class PoolRow(Base):
    __tablename__ = "pools"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    spec: Mapped[dict[str, Any]] = mapped_column(JSONB)
    status: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    version: Mapped[int] = mapped_column(default=1)
    updated_by: Mapped[str] = mapped_column(Text)
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class QueueEntryRow(Base):
    """Where an attempt stands in its pool's queue, as the pool controller last saw it."""

    __tablename__ = "queue_entries"
    __table_args__ = (ForeignKeyConstraint(["attempt_id", "project_id"], ["attempts.id", "attempts.project_id"]),)

    attempt_id: Mapped[str] = mapped_column(Text, primary_key=True)
    project_id: Mapped[str] = mapped_column(Text)
    pool: Mapped[str] = mapped_column(Text)
    position: Mapped[int]
    """From 1."""
    since: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    ordered_by: Mapped[str] = mapped_column(Text)
    """`kueue`: its own word on positions; `priority`: by priority and age of its Workloads."""
