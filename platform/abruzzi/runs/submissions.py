"""Submissions by key: whoever may submit the same thing twice (two controllers that see one object) gets the same run.

Unlike an Idempotency-Key, which is forgotten after days, a key lives as long as its run: an object may be looked at for years.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.states import RunState
from abruzzi.runs.models import RunRow

_LOCK = 743
"""Namespace of our advisory locks among those of other services."""


@dataclass(frozen=True, slots=True)
class Submitted:
    key: str
    run_id: str
    project_id: str
    state: RunState
    version: int
    """Of the run's row: grows with each change of its state."""
    created_by: str


async def claim(session: AsyncSession, key: str) -> str | None:
    """Id of the run that the key has made; None: it is the caller's until the end of the transaction, and others wait for that."""
    await session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:key, :lock))"), {"key": key, "lock": _LOCK}
    )
    return (await session.execute(select(RunRow.id).where(RunRow.submission_key == key))).scalar_one_or_none()


async def find(session: AsyncSession, keys: Collection[str]) -> list[Submitted]:
    """Of these keys, those that have made a run."""
    return await _select(session, RunRow.submission_key.in_(keys)) if keys else []


async def find_open(session: AsyncSession, prefix: str) -> list[Submitted]:
    """Runs that have not ended, by the beginning of their keys."""
    return await _select(
        session, RunRow.submission_key.startswith(prefix, autoescape=True) & RunRow.state.not_in(RunRow.ENDED)
    )


async def _select(session: AsyncSession, condition) -> list[Submitted]:  # type: ignore[no-untyped-def]
    rows = await session.execute(select(RunRow).where(condition))
    return [
        Submitted(row.submission_key or "", row.id, row.project_id, RunState(row.state), row.version, row.created_by)
        for row in rows.scalars()
    ]
