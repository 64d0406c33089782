"""Tables of nodes, and of who looks after them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from abruzzi.kit.db import Base

Moment = DateTime(timezone=True)


class NodeRow(Base):
    __tablename__ = "nodes"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    kind: Mapped[str] = mapped_column(Text)
    pool: Mapped[str | None] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text, default="")
    since: Mapped[datetime] = mapped_column(Moment)
    facts: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    attempts: Mapped[dict[str, list[int]]] = mapped_column(JSONB, default=dict)
    """{attempt: ranks on this node}"""
    heartbeat_at: Mapped[datetime | None] = mapped_column(Moment)
    faults: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, default=list)
    """The newest first."""
    quarantine: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """{reason, since, seen_at}: the fault it is for, and when it was last seen."""
    drain: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    forgiven_at: Mapped[datetime | None] = mapped_column(Moment)
    """When somebody last returned it: faults before do not count."""
    returned: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """{reason, by, at} of that."""
    observed_at: Mapped[datetime] = mapped_column(Moment)


class LeadershipRow(Base):
    __tablename__ = "leaderships"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    owner: Mapped[str] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(Moment)
