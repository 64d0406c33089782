"""Heartbeats of ranks: where each one is, and how long its steps take by phase."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.metric import Heartbeat
from abruzzi.contracts.states import PHASE_ENDED
from abruzzi.events import service as events
from abruzzi.kit.clock import from_unix
from abruzzi.runs import query
from abruzzi.runs.models import AttemptRow, RankRow
from abruzzi.runs.ownership import require_live
from abruzzi.usage.account import days

_KEPT_SAMPLES = 64
_CLOCK_SLACK = timedelta(seconds=60)


async def record(session: AsyncSession, attempt_id: str, beat: Heartbeat, *, now: datetime) -> None:
    """Newest heartbeat of a rank; an older one that comes late changes nothing. Raises Conflict when the attempt has ended."""
    attempt = await query.attempt_row(session, attempt_id)
    require_live(attempt)
    await record_of_living(session, attempt, beat, now=now)
    events.ring(session, events.CHANNEL_EVENTS, attempt.run_id)


async def record_of_living(session: AsyncSession, attempt: AttemptRow, beat: Heartbeat, *, now: datetime) -> None:
    """As `record`, of an attempt that the caller has at hand and knows to be alive. The caller rings."""
    # A rank's clock may be off: times far from ours are replaced, so that a wrong clock can neither fake nor hide a hang.
    said = _moment(beat.at) or now
    at = said if abs(said - now) < _CLOCK_SLACK else now
    ranks = (attempt.spec or {}).get("world_size", 1)
    if attempt.spec is not None and beat.rank >= ranks:
        raise AbruzziError(
            "no_such_rank", f"Attempt {attempt.id} has ranks 0 to {ranks - 1}, not {beat.rank}.", status=422
        )
    if beat.phase == PHASE_ENDED:
        await _end(session, attempt.id, beat.rank, at)
        return
    key, lock = (attempt.id, beat.rank), {"with_for_update": True, "populate_existing": True}
    rank = await session.get(RankRow, key, **lock)
    if rank is None:
        if await _is_first(session, attempt, beat, at):
            return
        rank = await session.get_one(RankRow, key, **lock)  # another was first, a moment ago
    if at <= rank.heartbeat_at:
        return
    rank.spent = _spend(rank.spent, rank.phase, rank.heartbeat_at, at)
    if rank.phase != beat.phase:
        rank.first_step, rank.first_at = beat.step, at
    elif beat.even_steps and beat.step > rank.step:
        seconds = (at - rank.heartbeat_at).total_seconds() / (beat.step - rank.step)
        samples = [*rank.phase_seconds.get(beat.phase, []), round(seconds, 4)][-_KEPT_SAMPLES:]
        rank.phase_seconds = {**rank.phase_seconds, beat.phase: samples}
    rank.step, rank.total_steps, rank.phase = beat.step, beat.total_steps, beat.phase
    rank.progress, rank.message, rank.heartbeat_at = beat.progress, beat.message, at


async def _is_first(session: AsyncSession, attempt: AttemptRow, beat: Heartbeat, at: datetime) -> bool:
    first = (
        insert(RankRow)
        .values(
            attempt_id=attempt.id,
            rank=beat.rank,
            project_id=attempt.project_id,
            step=beat.step,
            total_steps=beat.total_steps,
            phase=beat.phase,
            progress=beat.progress,
            message=beat.message,
            first_step=beat.step,
            first_at=at,
            heartbeat_at=at,
            phase_seconds={},
            spent={},
        )
        .on_conflict_do_nothing()
        .returning(RankRow.rank)
    )
    return (await session.execute(first)).first() is not None


async def _end(session: AsyncSession, attempt_id: str, number: int, at: datetime) -> None:
    """Where it was stays. One that never spoke has no row and gets none: of such an attempt nobody waits for words."""
    rank = await session.get(RankRow, (attempt_id, number), with_for_update=True, populate_existing=True)
    if rank is None or rank.phase == PHASE_ENDED:
        return
    at = max(at, rank.heartbeat_at)
    rank.spent = _spend(rank.spent, rank.phase, rank.heartbeat_at, at)
    rank.phase, rank.first_step, rank.first_at, rank.heartbeat_at = PHASE_ENDED, rank.step, at, at


def _spend(
    spent: Mapping[str, Mapping[str, float]], phase: str, start: datetime, end: datetime
) -> dict[str, dict[str, float]]:
    """With the time since the last heartbeat, which was the phase's that it named, each day's on its own."""
    made = {day: dict(phases) for day, phases in spent.items()}
    for day, milliseconds in days(start, end):
        of_day = made.setdefault(day.isoformat(), {})
        of_day[phase] = round(of_day.get(phase, 0.0) + milliseconds / 1000, 3)
    return made


@dataclass(frozen=True, slots=True)
class Newest:
    """Of a rank."""

    attempt_id: str
    rank: int
    step: int
    at: datetime
    step_seconds: float | None
    """The longest of its last steps in its present phase; None: they are not even, or there were none."""


async def newest(session: AsyncSession, attempt_ids: Collection[str]) -> list[Newest]:
    columns = (
        RankRow.attempt_id, RankRow.rank, RankRow.step, RankRow.heartbeat_at, RankRow.phase_seconds[RankRow.phase].label("seconds"),
    )  # fmt: skip
    rows = await session.execute(select(*columns).where(RankRow.attempt_id.in_(attempt_ids)))
    return [
        Newest(
            row.attempt_id,
            row.rank,
            row.step,
            row.heartbeat_at,
            max(row.seconds, default=None) if row.seconds else None,
        )
        for row in rows
    ]


def _moment(unix_seconds: float) -> datetime | None:
    """None for a time that no calendar has."""
    try:
        return from_unix(unix_seconds)
    except (ValueError, OverflowError, OSError):
        return None
