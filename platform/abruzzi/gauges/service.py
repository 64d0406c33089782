"""What Prometheus is shown of the state in Postgres. Few labels: states and kinds; runs only while they train, and no more than MAX_ATTEMPTS.

All of it is state, so any number of controllers may serve it: dashboards take the maximum over them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.pool import LOCAL

MAX_ATTEMPTS = 100
"""Of the attempts that run now, the newest; the label `run` never has more values at a time."""
TRAINING_KEYS = {
    "train/loss": "abruzzi_training_loss",
    "train/tokens_per_second": "abruzzi_training_tokens_per_second",
    "train/step_seconds": "abruzzi_training_step_seconds",
}


@dataclass(frozen=True, slots=True)
class Gauge:
    name: str
    help: str
    labels: tuple[str, ...]
    sql: str
    """Rows of the labels' values, then the value."""


GAUGES = (
    Gauge("abruzzi_runs", "Runs by state", ("state",), "SELECT state, count(*) FROM runs GROUP BY state"),
    Gauge("abruzzi_stages", "Stages of runs that have not ended, by kind and state", ("kind", "state"),
          "SELECT s.kind, s.state, count(*) FROM stages s JOIN runs r ON r.id = s.run_id WHERE r.state IN ('pending', 'running', 'cancelling', "
          "'interrupted') GROUP BY 1, 2"),
    Gauge("abruzzi_queue_depth", "Stages that could run and do not run yet, by pool", ("pool",),
          "SELECT coalesce(nullif(s.config->'resources'->>'pool', 'local'), :default_pool), count(*) FROM stages s WHERE state = 'pending' GROUP BY 1"),
    Gauge("abruzzi_queue_oldest_seconds", "Age of the oldest attempt that was created and has not started", (),
          "SELECT coalesce(extract(epoch FROM :now - min(created_at)), 0) FROM attempts WHERE state IN ('created', 'starting')"),
    Gauge("abruzzi_attempts", "Attempts by state and cause", ("state", "cause"),
          "SELECT state, coalesce(cause, ''), count(*) FROM attempts GROUP BY 1, 2"),
    Gauge("abruzzi_attempt_seconds", "Seconds that attempts ran, times their ranks, by stage kind and outcome", ("kind", "outcome"),
          "SELECT s.kind, coalesce(a.cause, a.state), sum(coalesce(a.world_size, s.world_size) * extract(epoch FROM coalesce(a.ended_at, :now) - a.started_at)) "
          "FROM attempts a JOIN stages s ON s.run_id = a.run_id AND s.id = a.stage_id WHERE a.started_at IS NOT NULL GROUP BY 1, 2"),
    Gauge("abruzzi_gpu_seconds", "Seconds that attempts held GPUs, times the GPUs, by pool and outcome", ("pool", "outcome"),
          "SELECT coalesce(a.pool, 'local'), coalesce(a.cause, a.state), sum(a.gpus * extract(epoch FROM coalesce(a.ended_at, :now) - a.held_at)) "
          "FROM attempts a WHERE a.held_at IS NOT NULL GROUP BY 1, 2"),
    Gauge("abruzzi_controller_lag_seconds", "How long the run that has been due for longest waits for a controller", (),
          "SELECT coalesce(extract(epoch FROM :now - min(CASE WHEN wake_at < :now - interval '1825 days' THEN wake_at + interval '3650 days' "
          "ELSE wake_at END)), 0) FROM runs WHERE wake_at <= :now AND "
          "(lease_expires_at IS NULL OR lease_expires_at < :now)"),
    Gauge("abruzzi_outbox_messages", "Messages of the outbox that wait or are quarantined", ("state",),
          "SELECT state, count(id) FROM (VALUES ('waiting'), ('quarantined')) AS s (state) LEFT JOIN outbox ON sent_at IS NULL AND "
          "state = CASE WHEN quarantined_at IS NULL THEN 'waiting' ELSE 'quarantined' END GROUP BY state"),
    Gauge("abruzzi_outbox_oldest_seconds", "Age of the oldest message that waits", (),
          "SELECT coalesce(extract(epoch FROM :now - min(created_at)), 0) FROM outbox WHERE sent_at IS NULL AND quarantined_at IS NULL"),
    Gauge("abruzzi_deliveries", "Notifications by state", ("state",), "SELECT state, count(*) FROM deliveries GROUP BY state"),
    Gauge("abruzzi_chore_failures", "Failures in a row of side work", ("chore",), "SELECT name, failures FROM chores"),
    Gauge("abruzzi_chore_age_seconds", "Since side work last went well", ("chore",),
          "SELECT name, extract(epoch FROM :now - ended_at) FROM chores WHERE ended_at IS NOT NULL"),
    Gauge("abruzzi_artifact_bytes", "Bytes of artifacts that were not removed", ("kind",),
          "SELECT kind, sum(size_bytes) FROM artifacts WHERE deleted_at IS NULL GROUP BY kind"),
)  # fmt: skip
"""A label whose group is empty has no sample."""

_TRAINING = text("""
    WITH running AS (
      SELECT id, run_id, stage_id FROM attempts WHERE state = 'running' ORDER BY created_at DESC LIMIT :limit
    )
    SELECT DISTINCT ON (running.id, m.key) m.key, running.run_id, running.stage_id, m.last
    FROM running JOIN metric_tiers m ON m.attempt_id = running.id
    WHERE m.key = ANY (:keys) AND m.tier = 4096 ORDER BY running.id, m.key, m.bucket DESC
""")


@dataclass(frozen=True, slots=True)
class Family:
    name: str
    help: str
    labels: tuple[str, ...]
    samples: Sequence[tuple[tuple[str, ...], float]]


async def read(session: AsyncSession, *, now: datetime, default_pool: str = LOCAL) -> list[Family]:
    """Of all projects: for a session of the controller. `default_pool`: what recipes mean by `local`."""
    named = {"now": now, "default_pool": default_pool}
    families = [await _family(session, gauge, named) for gauge in GAUGES]
    rows = (await session.execute(_TRAINING, {"limit": MAX_ATTEMPTS, "keys": list(TRAINING_KEYS)})).all()
    for key, name in TRAINING_KEYS.items():
        samples = [((r.run_id, r.stage_id), float(r.last)) for r in rows if r.key == key]
        families.append(Family(name, f"Last value of {key} of the attempts that run", ("run", "stage"), samples))
    return families


async def _family(session: AsyncSession, gauge: Gauge, named: Mapping[str, Any]) -> Family:
    used = {name: value for name, value in named.items() if f":{name}" in gauge.sql}
    rows = (await session.execute(text(gauge.sql), used)).all()
    return Family(gauge.name, gauge.help, gauge.labels, [(tuple(map(str, row[:-1])), float(row[-1])) for row in rows])
