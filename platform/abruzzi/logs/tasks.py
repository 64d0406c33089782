"""Side work of logs: chunks of runs that ended long ago go, from the object store and from the index."""

from __future__ import annotations

import asyncio
from datetime import datetime

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.kit.db import transaction
from abruzzi.kit.ground import Ground
from abruzzi.logs.models import LogChunkRow
from abruzzi.runs.models import AttemptRow, RunRow

BATCH = 200


async def count_old(session: AsyncSession, before: datetime) -> int:
    """Chunks."""
    return (await session.execute(select(func.count()).select_from(_old(before).subquery()))).scalar_one()


async def remove_old(ground: Ground, before: datetime) -> int:
    """The objects first: a crash in between leaves rows that the next turn removes, and never an object that nobody knows of."""
    async with transaction(ground.sessions) as session:
        chunks = (await session.execute(_old(before).limit(BATCH))).scalars().all()
    for chunk in chunks:
        await asyncio.to_thread(ground.objects.delete, chunk.object_key)
    async with transaction(ground.sessions) as session:
        gone = [(chunk.attempt_id, chunk.rank, chunk.start_offset) for chunk in chunks]
        key = tuple_(LogChunkRow.attempt_id, LogChunkRow.rank, LogChunkRow.start_offset)
        await session.execute(delete(LogChunkRow).where(key.in_(gone)))
    return len(chunks)


def _old(before: datetime):  # type: ignore[no-untyped-def]
    return (
        select(LogChunkRow)
        .join(AttemptRow, AttemptRow.id == LogChunkRow.attempt_id)
        .join(RunRow, RunRow.id == AttemptRow.run_id)
        .where(RunRow.ended_at < before, RunRow.state.in_(RunRow.ENDED))
    )
