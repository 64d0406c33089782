"""Metric points and their tiers.

One statement takes a batch: points are inserted once by (attempt, key, step), and only the new ones go into the tiers, so that replays,
reordering and duplicates change nothing. A tier's bucket keeps the exact minimum and maximum of its finite points: no spike is lost.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.metric import MetricBatch, Series
from abruzzi.contracts.resources import MetricKeyOut, SeriesOut
from abruzzi.events import service as events
from abruzzi.metrics.models import MetricPointRow, MetricTierRow

TIERS = (16, 64, 256, 1024, 4096)
"""Steps of a bucket. A factor of 4 from one to the next: whoever asks for at most n points gets n/4 at least."""
READ_TIER = 4
"""Made of the points when it is read: four times as many rows as the finest tier would cost every write."""
HEADLINE_KEYS = ("train/loss", "valid/loss")

_INGEST = text("""
WITH incoming AS (
  SELECT (CAST(:keys AS text[]))[k] AS key, step, value, at
  FROM unnest(CAST(:key_index AS int[]), CAST(:steps AS bigint[]), CAST(:points AS float8[]), CAST(:at AS float8[])) AS u(k, step, value, at)
), known AS (
  SELECT key, step FROM metric_points WHERE attempt_id = :attempt AND key = ANY (CAST(:keys AS text[])) AND step BETWEEN :first_step AND :last_step
), fresh AS (
  INSERT INTO metric_points (attempt_id, key, step, value, at, project_id)
  SELECT :attempt, key, step, value, at, :project FROM incoming WHERE NOT EXISTS (SELECT FROM known WHERE known.key = incoming.key AND known.step = incoming.step)
  RETURNING key, step, value, at
), finest AS MATERIALIZED (
  SELECT key, step / :finest AS bucket,
    min(value) FILTER (WHERE abs(value) < 'Infinity') AS low, max(value) FILTER (WHERE abs(value) < 'Infinity') AS high,
    coalesce(sum(least(greatest(value, -1e300), 1e300)) FILTER (WHERE abs(value) < 'Infinity'), 0) AS total,
    max(step) AS last_step, (array_agg(value ORDER BY step))[count(*)] AS last, (array_agg(at ORDER BY step))[count(*)] AS at, count(*) AS points
  FROM fresh GROUP BY key, step / :finest
), buckets AS (
  SELECT key, :finest AS tier, bucket, low, high, total, last_step, last, at, points FROM finest
  UNION ALL
  SELECT key, tier, last_step / tier, min(low), max(high), sum(total), max(last_step),
    (array_agg(last ORDER BY last_step))[count(*)], (array_agg(at ORDER BY last_step))[count(*)], sum(points)
  FROM finest CROSS JOIN unnest(CAST(:coarser AS int[])) AS t(tier) GROUP BY key, tier, last_step / tier
), spoilt AS (
  SELECT key, tier, step / tier AS bucket, array_agg(step) AS steps
  FROM fresh CROSS JOIN unnest(:finest || CAST(:coarser AS int[])) AS t(tier)
  WHERE NOT abs(value) < 'Infinity' GROUP BY key, tier, step / tier
), tiers AS (
  INSERT INTO metric_tiers AS m (attempt_id, key, tier, bucket, low, high, total, last_step, last, at, points, non_finite, project_id)
  SELECT :attempt, key, tier, bucket, low, high, total, last_step, last, at, points, coalesce(steps, '{}'), :project
  FROM buckets LEFT JOIN spoilt USING (key, tier, bucket)
  ON CONFLICT (attempt_id, key, tier, bucket) DO UPDATE SET
    low = least(m.low, excluded.low), high = greatest(m.high, excluded.high),
    last = CASE WHEN excluded.last_step > m.last_step THEN excluded.last ELSE m.last END,
    at = CASE WHEN excluded.last_step > m.last_step THEN excluded.at ELSE m.at END,
    last_step = greatest(m.last_step, excluded.last_step), points = m.points + excluded.points, total = m.total + excluded.total, non_finite = m.non_finite || excluded.non_finite
)
SELECT count(*), pg_notify(:channel, :run) FROM fresh
""")
"""Each tier is made of the finer one, and every sort is of points that mostly come sorted: what is left is the cost of the insert itself.
PostgreSQL puts NaN above infinity, so `abs(value) < 'Infinity'` is exactly the finite ones. A sum that overflows is an error there: its terms are capped.
Known points are looked up once for the whole batch: ON CONFLICT would do it row by row, with a write-ahead record more for each (twice the
time). That is exact because `ingest` holds the attempt's lock; the primary key stands behind it."""


async def ingest(session: AsyncSession, *, project_id: str, run_id: str, attempt_id: str, batch: MetricBatch) -> int:
    """Number of new points. Part of the caller's transaction. What a superseded attempt reports changes its curves, not the run's headline."""
    taken = {key: _once_each_step(series) for key, series in batch.series.items() if series.steps}
    if not taken:
        return 0
    key_index = [i for i, series in enumerate(taken.values(), 1) for _ in series.steps]
    # Two ranks of an attempt may send the same keys at once: one after the other, or their bucket rows could deadlock. And a plan that is
    # made for arrays of unknown length joins 10 000 points row by row.
    await session.execute(
        text(
            "SELECT pg_advisory_xact_lock(hashtextextended(:attempt, 1)), set_config('plan_cache_mode', 'force_custom_plan', true)"
        ),
        {"attempt": attempt_id},
    )
    parameters = {
        "keys": list(taken),
        "key_index": _array(key_index),
        "steps": _array([step for series in taken.values() for step in series.steps]),
        "points": _array([value for series in taken.values() for value in series.values]),
        "at": _array([at for series in taken.values() for at in series.at]),
        "first_step": min(min(series.steps) for series in taken.values()),
        "last_step": max(max(series.steps) for series in taken.values()),
        "attempt": attempt_id,
        "project": project_id,
        "finest": TIERS[0],
        "coarser": list(TIERS[1:]),
        "channel": events.CHANNEL_EVENTS,
        "run": run_id,
    }
    new = (await session.execute(_INGEST, parameters)).scalars().one()
    headline = {k: taken[k].values[-1] for k in HEADLINE_KEYS if k in taken and math.isfinite(taken[k].values[-1])}
    if headline and new:
        await _set_headline(session, run_id, attempt_id, headline)
    return int(new)


async def list_keys(session: AsyncSession, run_id: str) -> list[MetricKeyOut]:
    """Every key of a run with its last point, by stage."""
    query = text("""
        SELECT DISTINCT ON (a.stage_id, m.key) a.stage_id, m.key, m.last_step, m.last
        FROM attempts a JOIN metric_tiers m ON m.attempt_id = a.id
        WHERE a.run_id = :run AND m.tier = :tier
        ORDER BY a.stage_id, m.key, a.number DESC, m.bucket DESC
    """)
    rows = (await session.execute(query, {"run": run_id, "tier": TIERS[-1]})).all()
    return [
        MetricKeyOut(stage_id=r.stage_id, key=r.key, last_step=r.last_step, last_value=_finite(r.last)) for r in rows
    ]


async def newest(
    session: AsyncSession, run_ids: Sequence[str], *, like: Sequence[str]
) -> dict[tuple[str, str], dict[str, tuple[int, float | None]]]:
    """{(run, stage): {key: (step, value) of its last point}} of keys that are like one of these (SQL patterns)."""
    query = text("""
        SELECT DISTINCT ON (a.run_id, a.stage_id, m.key) a.run_id, a.stage_id, m.key, m.last_step, m.last
        FROM attempts a JOIN metric_tiers m ON m.attempt_id = a.id
        WHERE a.run_id = ANY (:runs) AND m.tier = :tier AND m.key LIKE ANY (:like)
        ORDER BY a.run_id, a.stage_id, m.key, a.number DESC, m.bucket DESC
    """)
    rows = (await session.execute(query, {"runs": list(run_ids), "tier": TIERS[-1], "like": list(like)})).all()
    found: dict[tuple[str, str], dict[str, tuple[int, float | None]]] = defaultdict(dict)
    for row in rows:
        found[row.run_id, row.stage_id][row.key] = (row.last_step, _finite(row.last))
    return found


async def series(
    session: AsyncSession,
    run_id: str,
    keys: Sequence[str],
    *,
    stage_id: str | None = None,
    max_points: int = 1000,
    from_step: int | None = None,
    to_step: int | None = None,
) -> list[SeriesOut]:
    """One curve an attempt and key: all points while they fit `max_points`, else the finest tier that does, with `max_points` / 4 buckets at least."""
    attempts = (
        await session.execute(
            text(
                "SELECT id, stage_id FROM attempts WHERE run_id = :run AND (CAST(:stage AS text) IS NULL OR stage_id = :stage) ORDER BY epoch"
            ),
            {"run": run_id, "stage": stage_id},
        )
    ).all()
    low, high = from_step or 0, to_step if to_step is not None else 2**62
    intervals = await _intervals(session, [a.id for a in attempts], keys)
    found = [
        await _curve(session, a.id, a.stage_id, key, intervals[a.id, key], max_points, low, high)
        for a in attempts
        for key in keys
        if (a.id, key) in intervals
    ]
    return [s for s in found if s.steps]


async def _intervals(
    session: AsyncSession, attempt_ids: Sequence[str], keys: Sequence[str]
) -> dict[tuple[str, str], float]:
    """{(attempt, key): mean steps between two points of the whole curve}, of those that have points."""
    query = text("""
        SELECT attempt_id, key, sum(points) AS points, max(last_step) AS last_step,
          coalesce((SELECT min(p.step) FROM metric_points p WHERE p.attempt_id = t.attempt_id AND p.key = t.key), min(bucket) * :tier) AS first_step
        FROM metric_tiers t WHERE attempt_id = ANY (CAST(:attempts AS text[])) AND key = ANY (CAST(:keys AS text[])) AND tier = :tier
        GROUP BY attempt_id, key
    """)
    rows = await session.execute(query, {"attempts": list(attempt_ids), "keys": list(keys), "tier": TIERS[-1]})
    return {
        (r.attempt_id, r.key): max(1.0, (r.last_step - r.first_step) / (r.points - 1)) if r.points > 1 else 1.0
        for r in rows.all()
    }


async def _curve(
    session: AsyncSession,
    attempt_id: str,
    stage_id: str,
    key: str,
    interval: float,
    max_points: int,
    low: int,
    high: int,
) -> SeriesOut:
    points = (
        select(MetricPointRow.step, MetricPointRow.value, MetricPointRow.at)
        .where(
            MetricPointRow.attempt_id == attempt_id, MetricPointRow.key == key, MetricPointRow.step.between(low, high)
        )
        .order_by(MetricPointRow.step)
        .limit(max_points + 1)
    )
    rows = (await session.execute(points)).all()
    if len(rows) <= max_points:
        values = [_finite(r.value) for r in rows]
        bad = [r.step for r, v in zip(rows, values, strict=True) if v is None]
        return SeriesOut(
            attempt_id=attempt_id, stage_id=stage_id, key=key, tier=1, interval=interval, steps=[r.step for r in rows], values=values, low=values,
            high=values, means=values, at=[r.at for r in rows], non_finite=bad,
        )  # fmt: skip
    tier, found = await _buckets(session, attempt_id, key, max_points, low, high)
    return SeriesOut(
        attempt_id=attempt_id,
        stage_id=stage_id,
        key=key,
        tier=tier,
        interval=interval,
        steps=[b.last_step for b in found],
        values=[_finite(b.last) for b in found],
        low=[b.low for b in found],
        high=[b.high for b in found],
        means=[b.total / finite if (finite := b.points - len(b.non_finite)) > 0 else None for b in found],
        at=[b.at for b in found],
        non_finite=sorted(step for b in found for step in b.non_finite),
    )


async def _buckets(
    session: AsyncSession, attempt_id: str, key: str, max_points: int, low: int, high: int
) -> tuple[int, Sequence[Any]]:
    """The finest tier whose buckets are no more than `max_points`, and its buckets."""
    tier, found = TIERS[0], []
    for tier in TIERS:
        buckets = (
            select(MetricTierRow)
            .where(
                MetricTierRow.attempt_id == attempt_id,
                MetricTierRow.key == key,
                MetricTierRow.tier == tier,
                MetricTierRow.bucket.between(low // tier, high // tier),
            )
            .order_by(MetricTierRow.bucket)
            .limit(max_points + 1)
        )
        found = list((await session.execute(buckets)).scalars())
        if len(found) <= max_points:
            break
    if tier != TIERS[0] or len(found) * (TIERS[0] // READ_TIER) > max_points:
        return tier, found
    finer = text("""
        SELECT max(step) AS last_step, (array_agg(value ORDER BY step DESC))[1] AS last, (array_agg(at ORDER BY step DESC))[1] AS at,
          min(value) FILTER (WHERE abs(value) < 'Infinity') AS low, max(value) FILTER (WHERE abs(value) < 'Infinity') AS high,
          coalesce(sum(least(greatest(value, -1e300), 1e300)) FILTER (WHERE abs(value) < 'Infinity'), 0) AS total, count(*) AS points,
          coalesce(array_agg(step) FILTER (WHERE NOT abs(value) < 'Infinity'), '{}') AS non_finite
        FROM metric_points WHERE attempt_id = :attempt AND key = :key AND step BETWEEN :low AND :high GROUP BY step / :tier ORDER BY 1
    """)
    first, last = low // READ_TIER * READ_TIER, min(2**62, high // READ_TIER * READ_TIER + READ_TIER - 1)
    parameters = {"attempt": attempt_id, "key": key, "low": first, "high": last, "tier": READ_TIER}
    return READ_TIER, (await session.execute(finer, parameters)).all()


async def _set_headline(session: AsyncSession, run_id: str, attempt_id: str, headline: dict[str, float]) -> None:
    statement = text("""
        UPDATE runs SET headline = headline || CAST(:headline AS jsonb) WHERE id = :run AND NOT EXISTS (
          SELECT FROM attempts mine JOIN attempts newer ON (newer.run_id, newer.stage_id) = (mine.run_id, mine.stage_id) AND newer.number > mine.number
          WHERE mine.id = :attempt)
    """)
    await session.execute(statement, {"headline": json.dumps(headline), "run": run_id, "attempt": attempt_id})


def _once_each_step(series: Series) -> Series:
    """The first point of every step."""
    if len(set(series.steps)) == len(series.steps):
        return series
    first: dict[int, int] = {}
    for index, step in enumerate(series.steps):
        first.setdefault(step, index)
    kept = list(first.values())
    return Series(steps=list(first), values=[series.values[i] for i in kept], at=[series.at[i] for i in kept])


def _array(numbers: Sequence[float]) -> str:
    """As PostgreSQL writes arrays. Element by element through the driver, 10 000 points take as long as inserting them."""
    return "{" + str(numbers)[1:-1] + "}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
