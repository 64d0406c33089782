"""Counting and removing old rows, a batch at a time, so that no transaction grows long."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, delete, func, inspect, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.kit.db import Base

BATCH = 1000


async def count_rows(session: AsyncSession, model: type[Base], *where: ColumnElement[bool]) -> int:
    return (await session.execute(select(func.count()).select_from(model).where(*where))).scalar_one()


async def delete_rows(session: AsyncSession, model: type[Base], *where: ColumnElement[bool]) -> int:
    """BATCH rows at most. Returns how many are gone."""
    keys: list[Any] = list(inspect(model).primary_key)
    picked = select(*keys).where(*where).limit(BATCH).with_for_update(skip_locked=True).subquery()
    statement = delete(model).where(tuple_(*keys).in_(select(*picked.c))).returning(*keys)
    return len((await session.execute(statement)).all())
