"""Side work of metrics: points and tiers of runs that ended long ago go, an attempt at a time."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.kit.db import transaction
from abruzzi.kit.ground import Ground
from abruzzi.metrics.models import MetricPointRow, MetricTierRow
from abruzzi.runs.models import AttemptRow, RunRow


async def count_old(session: AsyncSession, before: datetime) -> int:
    """Attempts whose curves would go."""
    return (await session.execute(select(func.count()).select_from(_old(before).subquery()))).scalar_one()


async def remove_old(ground: Ground, before: datetime) -> int:
    """One attempt. The tiers last: they say that there is something left to remove."""
    async with transaction(ground.sessions) as session:
        attempt_id = (await session.execute(_old(before).limit(1))).scalar_one_or_none()
        if attempt_id is None:
            return 0
        await session.execute(delete(MetricPointRow).where(MetricPointRow.attempt_id == attempt_id))
        await session.execute(delete(MetricTierRow).where(MetricTierRow.attempt_id == attempt_id))
        return 1


def _old(before: datetime):  # type: ignore[no-untyped-def]
    return (
        select(AttemptRow.id)
        .join(RunRow, RunRow.id == AttemptRow.run_id)
        .where(
            RunRow.ended_at < before,
            RunRow.state.in_(RunRow.ENDED),
            exists().where(MetricTierRow.attempt_id == AttemptRow.id),
        )
    )
