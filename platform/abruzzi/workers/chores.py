"""When each chore is due is a row, never a timer of the broker. A failing chore is tried again with growing pauses, its error kept and shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.notification import ChoreOut
from abruzzi.kit.backoff import delay_seconds
from abruzzi.kit.ground import Outcome
from abruzzi.workers.models import ChoreRow

CLAIM_SECONDS = 600.0
"""Longer than a chore's step may take (its hard limit is 300 s)."""
FIRST_DELAY_SECONDS = 10.0
_ERROR_CHARACTERS = 1000


async def due(session: AsyncSession, names: Sequence[str], *, now: datetime) -> tuple[str, ...]:
    """Those of `names` that are due. New ones are due at once."""
    known = {row.name: row.due_at for row in (await session.execute(select(ChoreRow.name, ChoreRow.due_at))).all()}
    missing = [name for name in names if name not in known]
    if missing:
        rows = [{"name": name, "due_at": now} for name in missing]
        await session.execute(insert(ChoreRow).values(rows).on_conflict_do_nothing())
    return tuple(name for name in names if known.get(name, now) <= now)


async def claim(session: AsyncSession, name: str, *, now: datetime) -> int | None:
    """Failures in a row, this try counted until it succeeds; None when it is not due, or another worker has it."""
    values = {"due_at": now + timedelta(seconds=CLAIM_SECONDS), "started_at": now, "failures": ChoreRow.failures + 1}
    statement = update(ChoreRow).where(ChoreRow.name == name, ChoreRow.due_at <= now).values(values)
    return (await session.execute(statement.returning(ChoreRow.failures))).scalar_one_or_none()


async def mark_done(session: AsyncSession, name: str, outcome: Outcome, every_seconds: float, *, now: datetime) -> None:
    due_at = now if outcome.more else now + timedelta(seconds=every_seconds)
    values = {"due_at": due_at, "ended_at": now, "failures": 0, "last_error": None, "facts": outcome.facts}
    await session.execute(update(ChoreRow).where(ChoreRow.name == name).values(values))


async def mark_failed(
    session: AsyncSession,
    name: str,
    error: str,
    failures: int,
    every_seconds: float,
    *,
    now: datetime,
    random: Callable[[], float],
) -> None:
    delay = delay_seconds(failures, first=FIRST_DELAY_SECONDS, most=max(every_seconds, 300.0), random=random)
    values = {"due_at": now + timedelta(seconds=delay), "last_error": error[:_ERROR_CHARACTERS]}
    await session.execute(update(ChoreRow).where(ChoreRow.name == name).values(values))


async def list_chores(session: AsyncSession) -> list[ChoreOut]:
    rows = (await session.execute(select(ChoreRow).order_by(ChoreRow.name))).scalars()
    return [
        ChoreOut(
            name=r.name, due_at=r.due_at, started_at=r.started_at, ended_at=r.ended_at, failures=r.failures, error=r.last_error, facts=r.facts
        )
        for r in rows
    ]  # fmt: skip
