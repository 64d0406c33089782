"""Side work of identity: expired tokens and remembered answers go."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import or_
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.identity.models import IdempotencyRow, TokenRow
from abruzzi.kit.db import transaction
from abruzzi.kit.expiry import count_rows, delete_rows
from abruzzi.kit.ground import Ground


async def count_answers(session: AsyncSession, before: datetime) -> int:
    return await count_rows(session, IdempotencyRow, IdempotencyRow.created_at < before)


async def remove_answers(ground: Ground, before: datetime) -> int:
    async with transaction(ground.sessions) as session:
        return await delete_rows(session, IdempotencyRow, IdempotencyRow.created_at < before)


async def count_tokens(session: AsyncSession, before: datetime) -> int:
    return await count_rows(session, TokenRow, _ended(before))


async def remove_tokens(ground: Ground, before: datetime) -> int:
    async with transaction(ground.sessions) as session:
        return await delete_rows(session, TokenRow, _ended(before))


def _ended(before: datetime):  # type: ignore[no-untyped-def]
    return or_(TokenRow.expires_at < before, TokenRow.revoked_at < before)
