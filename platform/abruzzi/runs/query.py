"""Reading runs: detail, attempts. The list is in listing.py."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.errors import NotFound
from abruzzi.contracts.resources import AttemptOut, RunOut, StageOut
from abruzzi.contracts.states import AttemptState
from abruzzi.runs.models import AttemptRow, RankRow, RunRow, StageRow
from abruzzi.runs.outputs import attempt_out, run_out, stage_out


async def get(session: AsyncSession, run_id: str, *, now: datetime) -> RunOut:
    """Raises NotFound."""
    run = await row(session, run_id)
    stages = await stage_rows(session, run_id)
    attempts = await attempt_rows(session, run_id)
    ranks = await _ranks(session, [a.id for group in attempts.values() for a in group])
    return run_out(run, stages, attempts, ranks, now)


async def row(session: AsyncSession, run_id: str, *, lock: bool = False) -> RunRow:
    """Raises NotFound; another project's run is not found either."""
    query = select(RunRow).where(RunRow.id == run_id)
    found = (await session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()
    if found is None:
        raise NotFound("run", run_id, hint="`abruzzi runs list` shows them.")
    return found


async def stage_rows(session: AsyncSession, run_id: str) -> list[StageRow]:
    return list(
        (await session.execute(select(StageRow).where(StageRow.run_id == run_id).order_by(StageRow.position))).scalars()
    )


async def attempt_rows(session: AsyncSession, run_id: str) -> dict[str, list[AttemptRow]]:
    """By stage, oldest first."""
    found: dict[str, list[AttemptRow]] = defaultdict(list)
    for attempt in (
        await session.execute(select(AttemptRow).where(AttemptRow.run_id == run_id).order_by(AttemptRow.epoch))
    ).scalars():
        found[attempt.stage_id].append(attempt)
    return found


async def attempt_row(session: AsyncSession, attempt_id: str, *, lock: bool = False) -> AttemptRow:
    query = select(AttemptRow).where(AttemptRow.id == attempt_id)
    found = (await session.execute(query.with_for_update() if lock else query)).scalar_one_or_none()
    if found is None:
        raise NotFound("attempt", attempt_id)
    return found


async def visible_attempts(session: AsyncSession, attempt_ids: Sequence[str]) -> set[str]:
    """Those that the caller may see."""
    if not attempt_ids:
        return set()
    return set((await session.execute(select(AttemptRow.id).where(AttemptRow.id.in_(attempt_ids)))).scalars())


async def live_attempts(session: AsyncSession) -> dict[str, int]:
    """{attempt: its ranks}, of those that have not ended."""
    ended = [state for state in AttemptState if state.is_terminal]
    joined = select(AttemptRow.id, func.coalesce(AttemptRow.world_size, StageRow.world_size).label("world_size")).join(
        StageRow, (StageRow.run_id == AttemptRow.run_id) & (StageRow.id == AttemptRow.stage_id)
    )
    return {row.id: row.world_size for row in await session.execute(joined.where(AttemptRow.state.not_in(ended)))}


async def get_attempt(session: AsyncSession, attempt_id: str) -> AttemptOut:
    found = await attempt_row(session, attempt_id)
    return attempt_out(found, (await _ranks(session, [attempt_id])).get(attempt_id, []))


async def list_stages(session: AsyncSession, run_id: str, *, now: datetime) -> list[StageOut]:
    attempts = await attempt_rows(session, (await row(session, run_id)).id)
    ranks = await _ranks(session, [a.id for group in attempts.values() for a in group])
    return [stage_out(s, attempts.get(s.id, ()), ranks, now) for s in await stage_rows(session, run_id)]


async def _ranks(session: AsyncSession, attempt_ids: Sequence[str]) -> dict[str, list[RankRow]]:
    found: dict[str, list[RankRow]] = defaultdict(list)
    if attempt_ids:
        for rank in (
            await session.execute(select(RankRow).where(RankRow.attempt_id.in_(attempt_ids)).order_by(RankRow.rank))
        ).scalars():
            found[rank.attempt_id].append(rank)
    return found
