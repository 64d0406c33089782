"""Table of reviews. By the artifact's digest: the same rows made again are the same rows, and a stage knows digests only."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import DateTime, ForeignKey, Text
from sqlalchemy.orm import Mapped, mapped_column

from abruzzi.kit.db import Base


class ReviewRow(Base):
    __tablename__ = "reviews"

    project_id: Mapped[str] = mapped_column(Text, ForeignKey("projects.id"), primary_key=True)
    artifact_digest: Mapped[str] = mapped_column(Text, primary_key=True)
    row_id: Mapped[str] = mapped_column(Text, primary_key=True)
    verdict: Mapped[str] = mapped_column(Text)
    note: Mapped[str] = mapped_column(Text)
    by: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
