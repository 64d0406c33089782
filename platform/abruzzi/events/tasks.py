"""Side work of the outbox: what was sent need not be kept for ever."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.events.models import OutboxRow
from abruzzi.kit.db import transaction
from abruzzi.kit.expiry import count_rows, delete_rows
from abruzzi.kit.ground import Ground


async def count_sent(session: AsyncSession, before: datetime) -> int:
    return await count_rows(session, OutboxRow, OutboxRow.sent_at < before)


async def remove_sent(ground: Ground, before: datetime) -> int:
    async with transaction(ground.sessions) as session:
        return await delete_rows(session, OutboxRow, OutboxRow.sent_at < before)
