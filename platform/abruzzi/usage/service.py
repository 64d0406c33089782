"""GPU-hours by cause: days that were rolled up, and the rest computed from attempts and heartbeats when it is asked for. Both ways give the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.states import AttemptState, Cause, Role
from abruzzi.contracts.usage import HELD, By, Causes, Hours, Spent, UsageOut, UsageRow
from abruzzi.identity.policy import PLATFORM_PROJECT, Identity
from abruzzi.kit.db import see_project_names, see_projects
from abruzzi.usage.account import AttemptFacts, RankFacts, account

MOST_DAYS = 3700
HOUR_MS = 3_600_000

# A later attempt's resume point says what of an earlier one was kept: nothing (it began anew, or from what was there before), or up to a
# checkpoint that this one made. What a later attempt kept of attempts in between takes nothing from this one.
_ATTEMPTS = """
    SELECT a.id, a.project_id, a.run_id, r.name AS run_name, coalesce(a.pool, 'local') AS pool, a.gpus, a.cpus, coalesce(a.world_size, s.world_size) AS world_size, a.state, a.cause,
           a.created_at, a.held_at, a.started_at, a.ended_at,
           CASE WHEN a.stop_cause = 'hang' THEN coalesce(a.stacks_requested_at, a.stop_requested_at) END AS detected_at,
           (SELECT min(CASE WHEN n.resumed_from IS NULL OR c.run_id <> a.run_id OR c.epoch < a.epoch THEN a.created_at
                            WHEN c.epoch = a.epoch THEN c.created_at END)
            FROM attempts n LEFT JOIN artifacts c ON c.id = n.resumed_from
            WHERE n.run_id = a.run_id AND n.stage_id = a.stage_id AND n.number > a.number AND n.spec IS NOT NULL) AS kept_until
    FROM attempts a JOIN stages s ON s.run_id = a.run_id AND s.id = a.stage_id JOIN runs r ON r.id = a.run_id
    WHERE {which} ORDER BY a.id
"""
_LIVE = text(
    _ATTEMPTS.format(
        which="""(a.ended_at IS NULL OR a.ended_at >= :start) AND a.created_at < :end
                 AND NOT EXISTS (SELECT 1 FROM usage_runs u WHERE u.run_id = a.run_id AND u.revision = r.revision)"""
    )
)
OF_RUN = text(_ATTEMPTS.format(which="a.run_id = :run"))
_RANKS = text(
    "SELECT attempt_id, phase, heartbeat_at, spent FROM ranks WHERE attempt_id = ANY (:ids) ORDER BY attempt_id, rank"
)
_ROLLED = text("""
    SELECT d.project_id, d.run_id, r.name AS run_name, d.pool, d.day, d.cause, d.gpu_ms, d.cpu_ms
    FROM usage_days d JOIN usage_runs u ON u.run_id = d.run_id JOIN runs r ON r.id = d.run_id AND r.revision = u.revision
    WHERE d.day >= :from_day AND d.day <= :to_day AND d.run_id <> ALL (:live)
""")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a run spent in a pool on a day, by one cause."""

    project_id: str
    run_id: str
    run_name: str
    pool: str
    day: date
    cause: Spent
    gpu_ms: int
    cpu_ms: int


async def usage(
    session: AsyncSession,
    *,
    from_day: date | None,
    to_day: date | None,
    by: By,
    pool: str | None = None,
    now: datetime,
) -> UsageOut:
    """Of the projects that the session sees, in one pool or in all. Both days inclusive, in UTC; by default the last 30. Raises AbruzziError `bad_days`."""
    last = to_day or now.astimezone(UTC).date()
    first = from_day or last - timedelta(days=29)
    if first > last or (last - first).days > MOST_DAYS:
        raise AbruzziError(
            "bad_days",
            f"From {first} to {last} is no span of 1 to {MOST_DAYS} days.",
            status=422,
            hint="`from` comes first.",
        )
    entries = [e for e in await read(session, first, last, now=now) if pool is None or e.pool == pool]
    return UsageOut(
        from_day=first,
        to_day=last,
        by=by,
        items=group(entries, by),
        total=_row("total", "total", entries),
        computed_at=now,
    )


async def see_all_projects(session: AsyncSession, identity: Identity) -> None:
    """The platform's own admins account for everybody; others see their project."""
    if identity.role is Role.ADMIN and PLATFORM_PROJECT in identity.projects:
        await see_project_names(session)
        found = (await session.execute(text("SELECT id FROM projects"))).scalars().all()
        await see_projects(session, found)


async def read(session: AsyncSession, first: date, last: date, *, now: datetime) -> list[Entry]:
    """Live ones before those that were rolled up: a run that is rolled up in between is not counted twice."""
    span = {"start": _midnight(first), "end": _midnight(last + timedelta(days=1))}
    live = await entries_of(session, (await session.execute(_LIVE, span)).mappings().all(), now=now)
    known = {"from_day": first, "to_day": last, "live": sorted({entry.run_id for entry in live})}
    rolled = [
        Entry(r.project_id, r.run_id, r.run_name, r.pool, r.day, Spent(r.cause), r.gpu_ms, r.cpu_ms)
        for r in (await session.execute(_ROLLED, known)).all()
    ]
    return [e for e in live if first <= e.day <= last] + rolled


async def entries_of(session: AsyncSession, attempts: Sequence[RowMapping], *, now: datetime) -> list[Entry]:
    ids = [attempt["id"] for attempt in attempts]
    ranks: dict[str, list[RankFacts]] = defaultdict(list)
    if ids:
        for rank in (await session.execute(_RANKS, {"ids": ids})).all():
            ranks[rank.attempt_id].append(RankFacts(rank.spent, rank.phase, rank.heartbeat_at))
    summed: dict[tuple[str, str, date, Spent], list[int]] = defaultdict(lambda: [0, 0])
    of_run: dict[str, tuple[str, str]] = {}
    for attempt in attempts:
        of_run[attempt["run_id"]] = (attempt["project_id"], attempt["run_name"])
        world = attempt["world_size"]
        for (day, cause), rank_ms in account(_facts(attempt, ranks[attempt["id"]]), now).items():
            amounts = summed[attempt["run_id"], attempt["pool"], day, cause]
            amounts[0] += round(rank_ms * attempt["gpus"] / world)
            amounts[1] += round(rank_ms * attempt["cpus"] / world)
    return [
        Entry(of_run[run][0], run, of_run[run][1], pool, day, cause, gpu_ms, cpu_ms)
        for (run, pool, day, cause), (gpu_ms, cpu_ms) in summed.items()
        if gpu_ms or cpu_ms
    ]


def _facts(attempt: RowMapping, ranks: Sequence[RankFacts]) -> AttemptFacts:
    return AttemptFacts(
        created_at=attempt["created_at"],
        held_at=attempt["held_at"],
        started_at=attempt["started_at"],
        ended_at=attempt["ended_at"],
        state=AttemptState(attempt["state"]),
        cause=Cause(attempt["cause"]) if attempt["cause"] else None,
        detected_at=attempt["detected_at"],
        kept_until=attempt["kept_until"],
        world_size=attempt["world_size"],
        ranks=ranks,
    )


def group(entries: Iterable[Entry], by: By) -> list[UsageRow]:
    """Days in order; causes in the order of their definition; others by what they held, most first."""
    groups: dict[str, list[Entry]] = defaultdict(list)
    names: dict[str, str] = {}
    for entry in entries:
        key = _KEYS[by](entry)
        groups[key].append(entry)
        names[key] = entry.run_name if by is By.RUN else key
    rows = [_row(key, names[key], found) for key, found in groups.items()]
    if by is By.DAY:
        return sorted(rows, key=lambda row: row.key)
    if by is By.CAUSE:
        return sorted(rows, key=lambda row: list(Spent).index(Spent(row.key)))
    return sorted(rows, key=lambda row: (-row.held.gpu, -row.held.cpu, row.key))


_KEYS = {
    By.PROJECT: lambda entry: entry.project_id,
    By.POOL: lambda entry: entry.pool,
    By.DAY: lambda entry: entry.day.isoformat(),
    By.RUN: lambda entry: entry.run_id,
    By.CAUSE: lambda entry: entry.cause.value,
}


def _row(key: str, name: str, entries: Iterable[Entry]) -> UsageRow:
    sums = {cause: [0, 0] for cause in Spent}
    for entry in entries:
        sums[entry.cause][0] += entry.gpu_ms
        sums[entry.cause][1] += entry.cpu_ms
    held = [sum(sums[cause][unit] for cause in HELD) for unit in (0, 1)]
    unit = 0 if held[0] else 1
    return UsageRow(
        key=key,
        name=name,
        held=_hours(held),
        causes=Causes(**{cause.value: _hours(sums[cause]) for cause in HELD}),
        queue=_hours(sums[Spent.QUEUE]),
        goodput=sums[Spent.TRAIN][unit] / held[unit] if held[unit] else None,
    )


def _hours(milliseconds: Sequence[int]) -> Hours:
    return Hours(gpu=milliseconds[0] / HOUR_MS, cpu=milliseconds[1] / HOUR_MS)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), UTC)
