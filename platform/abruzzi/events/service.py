"""The event log and the outbox. Writers append in their own transaction; readers never skip a late commit."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.resources import EventOut
from abruzzi.events.models import EventRow, OutboxRow
from abruzzi.kit.db import ring_after_commit

CHANNEL_RUNS = "abruzzi_runs"
"""NOTIFY channel that rings controllers; the payload is a run id. Losing a ring delays, never loses."""
CHANNEL_EVENTS = "abruzzi_events"
"""NOTIFY channel for live streams; the payload is a run id."""


def append(session: AsyncSession, project_id: str, run_id: str | None, kind: str, body: dict[str, Any]) -> None:
    """Part of the caller's transaction."""
    session.add(EventRow(project_id=project_id, run_id=run_id, kind=kind, body=body))


def enqueue(session: AsyncSession, project_id: str, kind: str, body: dict[str, Any]) -> None:
    """A message for side work (notifications, exports): handled after the commit, by events/outbox.py."""
    session.add(OutboxRow(project_id=project_id, kind=kind, body=body))


def ring(session: AsyncSession, channel: str, payload: str) -> None:
    """Once the caller's transaction is committed."""
    ring_after_commit(session, channel, payload)


def ring_all(session: AsyncSession, run_id: str) -> None:
    """Controllers and live streams."""
    for channel in (CHANNEL_RUNS, CHANNEL_EVENTS):
        ring_after_commit(session, channel, run_id)


async def read(session: AsyncSession, *, after: int = 0, run_id: str | None = None, limit: int = 200) -> list[EventOut]:
    """Events after a position, in order, below every transaction that is still open.

    Sequence values are taken before the commit: a reader that went by id alone would pass a writer that is still open and never see
    its event. `pg_snapshot_xmin` is the oldest transaction that may still write; what lies below it is complete.
    """
    query = (
        select(EventRow.id, EventRow.run_id, EventRow.kind, EventRow.body, EventRow.at)
        .where(EventRow.id > after, literal_column("events.xid < pg_snapshot_xmin(pg_current_snapshot())"))
        .order_by(EventRow.id)
        .limit(limit)
    )
    if run_id is not None:
        query = query.where(EventRow.run_id == run_id)
    rows = (await session.execute(query)).all()
    return [EventOut(id=str(r.id), run_id=r.run_id, kind=r.kind, body=r.body, at=r.at) for r in rows]


async def more_to_come(session: AsyncSession, *, after: int, run_id: str) -> bool:
    """Whether events of the run are committed beyond a position that `read` may not show yet, or has not."""
    query = select(EventRow.id).where(EventRow.run_id == run_id, EventRow.id > after).limit(1)
    return (await session.execute(query)).first() is not None


async def last_position(session: AsyncSession) -> int:
    """Position of the newest event that a reader may see."""
    query = select(func.max(EventRow.id)).where(literal_column("events.xid < pg_snapshot_xmin(pg_current_snapshot())"))
    return (await session.execute(query)).scalar() or 0
