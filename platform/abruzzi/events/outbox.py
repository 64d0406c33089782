"""The outbox: messages for side work, written in the transaction of what they tell.

A message is claimed for a while (its try counted and committed before anything is done, so that one that kills its worker is counted, too),
handled in one transaction with the mark that it was sent, and tried again later when that fails. After MAX_TRIES it is quarantined: kept
with its error, shown to people, and in nobody's way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.errors import NotFound
from abruzzi.contracts.notification import QuarantinedOut
from abruzzi.events.models import OutboxRow
from abruzzi.kit.backoff import delay_seconds

MAX_TRIES = 6
CLAIM_SECONDS = 30.0
SLOW_CLAIM_SECONDS = {"run.export": 360.0}
"""By kind, longer than handling takes (the workers' hard limit is 300 s): so long a message waits whose worker was killed."""
FIRST_DELAY_SECONDS, MOST_DELAY_SECONDS = 2.0, 600.0
_ERROR_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class Message:
    id: int
    project_id: str
    kind: str
    body: dict[str, Any]
    tries: int
    created_at: datetime


async def claim(session: AsyncSession, *, now: datetime) -> Message | None:
    """The oldest message that is due, for this caller alone until the claim runs out. One that crashed its worker MAX_TRIES times is quarantined."""
    while True:
        query = select(OutboxRow).where(*_due(now)).order_by(OutboxRow.id).limit(1).with_for_update(skip_locked=True)
        row = (await session.execute(query)).scalar_one_or_none()
        if row is None:
            return None
        if row.tries >= MAX_TRIES:
            row.quarantined_at = now
            row.last_error = row.last_error or f"Its worker died {row.tries} times while it handled this message."
            await session.flush()
            continue
        row.tries += 1
        row.not_before = now + timedelta(seconds=SLOW_CLAIM_SECONDS.get(row.kind, CLAIM_SECONDS))
        await session.flush()
        return Message(row.id, row.project_id, row.kind, row.body, row.tries, row.created_at)


async def mark_sent(session: AsyncSession, message: Message, *, now: datetime) -> bool:
    """In the transaction of the effect. False: another worker was faster (its claim had run out), and the effect must not be committed."""
    statement = (
        update(OutboxRow)
        .where(OutboxRow.id == message.id, OutboxRow.sent_at.is_(None), OutboxRow.tries == message.tries)
        .values(sent_at=now, last_error=None)
        .returning(OutboxRow.id)
    )
    return (await session.execute(statement)).first() is not None


async def mark_failed(
    session: AsyncSession, message: Message, error: str, *, now: datetime, random: Callable[[], float]
) -> None:
    """Due again after a delay, or quarantined."""
    delay = delay_seconds(message.tries, first=FIRST_DELAY_SECONDS, most=MOST_DELAY_SECONDS, random=random)
    statement = (
        update(OutboxRow)
        .where(OutboxRow.id == message.id, OutboxRow.sent_at.is_(None), OutboxRow.tries == message.tries)
        .values(
            last_error=error[:_ERROR_CHARACTERS],
            not_before=now + timedelta(seconds=delay),
            quarantined_at=now if message.tries >= MAX_TRIES else None,
        )
    )
    await session.execute(statement)


async def count_due(session: AsyncSession, *, now: datetime) -> int:
    return (await session.execute(select(func.count()).select_from(OutboxRow).where(*_due(now)))).scalar_one()


async def list_quarantined(
    session: AsyncSession, *, after: int | None = None, limit: int = 100
) -> list[QuarantinedOut]:
    """Newest first."""
    query = select(OutboxRow).where(OutboxRow.quarantined_at.is_not(None)).order_by(OutboxRow.id.desc()).limit(limit)
    if after is not None:
        query = query.where(OutboxRow.id < after)
    return [_quarantined(row) for row in (await session.execute(query)).scalars()]


async def retry_quarantined(session: AsyncSession, message_id: int, *, now: datetime) -> QuarantinedOut:
    """It is due again, with all its tries. Raises NotFound."""
    row = await session.get(OutboxRow, message_id, with_for_update=True)
    if row is None or row.quarantined_at is None:
        raise NotFound("quarantined message", str(message_id))
    shown = _quarantined(row)
    row.tries, row.not_before, row.quarantined_at = 0, now, None
    return shown


def _due(now: datetime):  # type: ignore[no-untyped-def]
    return OutboxRow.sent_at.is_(None), OutboxRow.quarantined_at.is_(None), OutboxRow.not_before <= now


def _quarantined(row: OutboxRow) -> QuarantinedOut:
    return QuarantinedOut(
        id=str(row.id), kind=row.kind, body=row.body, tries=row.tries, error=row.last_error, created_at=row.created_at
    )
