"""Tables of usage: runs that were rolled up, and their days."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import BigInteger, Date, DateTime, ForeignKey, ForeignKeyConstraint, Text
from sqlalchemy.orm import Mapped, mapped_column

from abruzzi.kit.db import Base


class UsageRunRow(Base):
    __tablename__ = "usage_runs"
    __table_args__ = (ForeignKeyConstraint(["run_id", "project_id"], ["runs.id", "runs.project_id"]),)

    run_id: Mapped[str] = mapped_column(Text, primary_key=True)
    project_id: Mapped[str] = mapped_column(Text)
    revision: Mapped[int]
    """Of the run, when it was rolled up: a run that is retried later is counted live again."""
    rolled_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class UsageDayRow(Base):
    __tablename__ = "usage_days"

    run_id: Mapped[str] = mapped_column(Text, ForeignKey("usage_runs.run_id", ondelete="CASCADE"), primary_key=True)
    pool: Mapped[str] = mapped_column(Text, primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    cause: Mapped[str] = mapped_column(Text, primary_key=True)
    project_id: Mapped[str] = mapped_column(Text)
    gpu_ms: Mapped[int] = mapped_column(BigInteger)
    """GPU-milliseconds."""
    cpu_ms: Mapped[int] = mapped_column(BigInteger)
