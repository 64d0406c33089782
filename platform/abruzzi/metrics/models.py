"""Tables of metric points and their tiers, hash-partitioned by attempt."""

from __future__ import annotations

from sqlalchemy import BigInteger, Text
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION
from sqlalchemy.orm import Mapped, mapped_column

from abruzzi.kit.db import Base


class MetricPointRow(Base):
    __tablename__ = "metric_points"
    __table_args__ = ({"postgresql_partition_by": "HASH (attempt_id)"},)

    attempt_id: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    value: Mapped[float] = mapped_column(DOUBLE_PRECISION)
    at: Mapped[float] = mapped_column(DOUBLE_PRECISION)
    project_id: Mapped[str] = mapped_column(Text)


class MetricTierRow(Base):
    """One bucket of `tier` steps: exact extrema of its finite points, and the last point."""

    __tablename__ = "metric_tiers"
    __table_args__ = ({"postgresql_partition_by": "HASH (attempt_id)"},)

    attempt_id: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    tier: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    bucket: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    low: Mapped[float | None] = mapped_column(DOUBLE_PRECISION)
    high: Mapped[float | None] = mapped_column(DOUBLE_PRECISION)
    last_step: Mapped[int] = mapped_column(BigInteger)
    last: Mapped[float] = mapped_column(DOUBLE_PRECISION)
    at: Mapped[float] = mapped_column(DOUBLE_PRECISION)
    points: Mapped[int]
    total: Mapped[float] = mapped_column(DOUBLE_PRECISION, server_default="0")
    """Sum of its finite values: with their number the mean, from which curves are smoothed alike at every tier."""
    non_finite: Mapped[list[int]] = mapped_column(ARRAY(BigInteger))
    """Steps whose value was NaN or infinite."""
    project_id: Mapped[str] = mapped_column(Text)
