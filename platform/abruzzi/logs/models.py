"""Table of log chunks: the index of what lies in the object store."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, Text, func
from sqlalchemy.orm import Mapped, mapped_column

from abruzzi.kit.db import Base


class LogChunkRow(Base):
    __tablename__ = "log_chunks"

    attempt_id: Mapped[str] = mapped_column(Text, primary_key=True)
    rank: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    start_offset: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    end_offset: Mapped[int] = mapped_column(BigInteger)
    object_key: Mapped[str] = mapped_column(Text)
    project_id: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
