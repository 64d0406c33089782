"""The roll-up: days of runs that have ended become rows, so that a year's report does not read a year's heartbeats."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, text
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.kit.db import transaction
from abruzzi.kit.ground import Budget, Ground, Outcome
from abruzzi.usage.models import UsageDayRow, UsageRunRow
from abruzzi.usage.service import OF_RUN, entries_of

# The run's row is locked: a retry, which opens its next revision, waits or comes first.
_CLAIM = text("""
    SELECT r.id, r.project_id, r.revision FROM runs r
    WHERE r.state IN ('succeeded', 'failed', 'cancelled')
      AND NOT EXISTS (SELECT 1 FROM usage_runs u WHERE u.run_id = r.id AND u.revision = r.revision)
      AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.run_id = r.id AND a.ended_at IS NULL)
    ORDER BY r.ended_at, r.id LIMIT 1 FOR UPDATE OF r SKIP LOCKED
""")


async def roll_up(ground: Ground, budget: Budget) -> Outcome:
    """One run a transaction. Twice is once: its earlier rows are replaced."""
    done = 0
    while not budget.is_spent:
        async with transaction(ground.sessions) as session:
            if not await _roll_up_one(session, ground.clock.now()):
                return Outcome({"runs": done})
        done += 1
    return Outcome({"runs": done}, more=True)


async def _roll_up_one(session: AsyncSession, now: datetime) -> bool:
    run = (await session.execute(_CLAIM)).one_or_none()
    if run is None:
        return False
    attempts = (await session.execute(OF_RUN, {"run": run.id})).mappings().all()
    entries = await entries_of(session, attempts, now=now)
    await session.execute(delete(UsageRunRow).where(UsageRunRow.run_id == run.id))  # its days go with it
    session.add(UsageRunRow(run_id=run.id, project_id=run.project_id, revision=run.revision, rolled_at=now))
    await session.flush()
    session.add_all(
        UsageDayRow(
            run_id=run.id, pool=e.pool, day=e.day, cause=e.cause, project_id=run.project_id, gpu_ms=e.gpu_ms, cpu_ms=e.cpu_ms
        )
        for e in entries
    )  # fmt: skip
    return True
