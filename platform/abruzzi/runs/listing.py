"""The list of runs: filtered, sorted by the database, page by page from where the last one ended."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Float, Select, and_, cast, func, literal, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only

from abruzzi.contracts.resources import RunSummary
from abruzzi.runs.models import AttemptRow, RankRow, RunRow, StageRow
from abruzzi.runs.outputs import run_summary
from abruzzi.runs.shown import run_state_column


class Sort(StrEnum):
    """By when it was submitted, its name, its state, how long it took, or a headline figure. Runs without the figure come last either way."""

    CREATED = "created"
    NAME = "name"
    STATE = "state"
    TOOK = "took"
    LOSS = "loss"
    BITS_PER_BYTE = "bpb"


_FIGURES = {Sort.LOSS: "train/loss", Sort.BITS_PER_BYTE: "bits_per_byte"}


@dataclass(frozen=True, slots=True)
class Position:
    """Of the last run seen: what it was sorted by (None: it had no figure), and its id.

    `at` is the moment of the first page: how long a run has taken grows while somebody turns pages.
    """

    value: str | float | datetime | None
    run_id: str
    at: datetime


async def list_runs(
    session: AsyncSession,
    *,
    now: datetime,
    project_id: str | None = None,
    states: Sequence[str] = (),
    q: str | None = None,
    sort: Sort = Sort.CREATED,
    descending: bool = True,
    after: Position | None = None,
    limit: int = 50,
) -> list[tuple[RunSummary, Position]]:
    """Runs with their positions, newest first unless asked otherwise."""
    at = after.at if after else now
    key = _key(sort, at)
    query = select(RunRow, key.label("key")).limit(limit)
    if project_id:
        query = query.where(RunRow.project_id == project_id)
    if states:
        query = query.where(run_state_column().in_(states))
    if q:
        query = query.where(
            or_(
                RunRow.name.icontains(q, autoescape=True),
                RunRow.id.startswith(q, autoescape=True),
                RunRow.recipe_name.icontains(q, autoescape=True),
            )
        )
    query = _ordered(query, key, descending, after, may_lack=sort in (Sort.TOOK, *_FIGURES))
    rows = (await session.execute(query)).all()
    summaries = await _summaries(session, [row.RunRow for row in rows], now)
    return [(s, Position(row.key, s.id, at)) for s, row in zip(summaries, rows, strict=True)]


def _key(sort: Sort, at: datetime) -> ColumnElement[Any]:
    match sort:
        case Sort.CREATED:
            return RunRow.__table__.c.created_at
        case Sort.NAME:
            return func.lower(RunRow.name).collate("C")
        case Sort.STATE:
            return run_state_column().collate("C")
        case Sort.TOOK:
            return cast(func.extract("epoch", func.coalesce(RunRow.ended_at, at) - RunRow.started_at), Float(53))
        case Sort.LOSS | Sort.BITS_PER_BYTE:
            return cast(RunRow.headline[_FIGURES[sort]].astext, Float(53))


def _ordered(
    query: Select[RunRow, Any], key: ColumnElement[Any], descending: bool, after: Position | None, *, may_lack: bool
) -> Select[RunRow, Any]:
    """In order, after a position. The id follows the direction, so that the index of the default order serves it."""
    run_id = RunRow.__table__.c.id
    columns = (key.desc(), run_id.desc()) if descending else (key.asc(), run_id.asc())
    beyond_id = (
        run_id < literal(after.run_id if after else "")
        if descending
        else run_id > literal(after.run_id if after else "")
    )
    if not may_lack:
        query = query.order_by(*columns)
        if after is None:
            return query
        here, there = tuple_(key, run_id), tuple_(literal(after.value), literal(after.run_id))
        return query.where(here < there if descending else here > there)
    query = query.order_by(key.is_(None), *columns)
    if after is None:
        return query
    if after.value is None:
        return query.where(key.is_(None), beyond_id)
    beyond = key < literal(after.value) if descending else key > literal(after.value)
    return query.where(or_(beyond, and_(key == literal(after.value), beyond_id), key.is_(None)))


def read_value(sort: Sort, text: str) -> str | float | datetime | None:
    """What a cursor carries as text. Raises ValueError."""
    match sort:
        case Sort.CREATED:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                raise ValueError("a moment without its time zone")
            return moment
        case Sort.NAME | Sort.STATE:
            return text
        case _:
            if text == "":
                return None
            value = float(text)
            if not math.isfinite(value):
                raise ValueError("no figure is infinite")
            return value


def write_value(value: str | float | datetime | None) -> str:
    """`read_value` of it gives exactly this value again."""
    if value is None:
        return ""
    return value.isoformat() if isinstance(value, datetime) else value if isinstance(value, str) else repr(value)


async def _summaries(session: AsyncSession, runs: Sequence[RunRow], now: datetime) -> list[RunSummary]:
    ids = [r.id for r in runs]
    stages: dict[str, list[StageRow]] = defaultdict(list)
    for stage in (
        await session.execute(select(StageRow).where(StageRow.run_id.in_(ids)).order_by(StageRow.position))
    ).scalars():
        stages[stage.run_id].append(stage)
    newest = (
        select(AttemptRow)
        .options(load_only(AttemptRow.run_id, AttemptRow.stage_id, AttemptRow.state, AttemptRow.reason))
        .where(AttemptRow.run_id.in_(ids))
        .distinct(AttemptRow.run_id, AttemptRow.stage_id)
        .order_by(AttemptRow.run_id, AttemptRow.stage_id, AttemptRow.number.desc())
    )
    current: dict[str, dict[str, AttemptRow]] = defaultdict(dict)
    for attempt in (await session.execute(newest)).scalars():
        current[attempt.run_id][attempt.stage_id] = attempt
    of_attempt = {a.id: a for group in current.values() for a in group.values()}
    ranks: dict[str, dict[str, list[RankRow]]] = defaultdict(lambda: defaultdict(list))
    if of_attempt:
        for rank in (
            await session.execute(select(RankRow).where(RankRow.attempt_id.in_(of_attempt)).order_by(RankRow.rank))
        ).scalars():
            attempt = of_attempt[rank.attempt_id]
            ranks[attempt.run_id][attempt.stage_id].append(rank)
    return [run_summary(r, stages[r.id], current[r.id], ranks[r.id], now) for r in runs]
