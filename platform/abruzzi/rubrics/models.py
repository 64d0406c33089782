"""Table of rubric sets: a row a version, never changed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, ForeignKey, Integer, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from abruzzi.kit.db import Base


class RubricSetRow(Base):
    __tablename__ = "rubric_sets"

    project_id: Mapped[str] = mapped_column(Text, ForeignKey("projects.id"), primary_key=True)
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    rubrics: Mapped[list[Any]] = mapped_column(JSONB)
    by: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
