"""Retention: what the operator's policy lets go, a batch at a time; with a dry run that only counts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.artifacts import tasks as artifacts
from abruzzi.contracts.retention import RetentionPolicy
from abruzzi.events import tasks as events
from abruzzi.identity import tasks as identity
from abruzzi.kit.db import transaction
from abruzzi.kit.ground import Budget, Ground, Outcome
from abruzzi.logs import tasks as logs
from abruzzi.metrics import tasks as metrics
from abruzzi.notifications import tasks as notifications


@dataclass(frozen=True, slots=True)
class Rule:
    name: str
    days: Callable[[RetentionPolicy], float | None]
    count: Callable[[AsyncSession, datetime], Awaitable[int]]
    remove: Callable[[Ground, datetime], Awaitable[int]]
    """One batch; 0 when nothing is left."""


RULES = (
    Rule("log_chunks", lambda p: p.log_days, logs.count_old, logs.remove_old),
    Rule("metric_attempts", lambda p: p.metric_days, metrics.count_old, metrics.remove_old),
    Rule("artifacts", lambda p: p.artifact_days, artifacts.count_deleted, artifacts.remove_deleted),
    Rule("idempotency_keys", lambda p: p.idempotency_days, identity.count_answers, identity.remove_answers),
    Rule("outbox", lambda p: p.outbox_days, events.count_sent, events.remove_sent),
    Rule("deliveries", lambda p: p.delivery_days, notifications.count_done, notifications.remove_done),
    Rule("tokens", lambda p: p.token_days, identity.count_tokens, identity.remove_tokens),
)


async def retain(ground: Ground, budget: Budget) -> Outcome:
    """Until nothing is left that may go, or the time is up."""
    removed: dict[str, int] = {}
    for rule, before in _active(ground):
        while (gone := await rule.remove(ground, before)) > 0:
            removed[rule.name] = removed.get(rule.name, 0) + gone
            if budget.is_spent:
                return Outcome(removed, more=True)
    return Outcome(removed)


async def preview(ground: Ground) -> dict[str, int]:
    """What `retain` would remove now, by rule. Changes nothing."""
    found: dict[str, int] = {}
    for rule, before in _active(ground):
        async with transaction(ground.sessions) as session:
            found[rule.name] = await rule.count(session, before)
    return found


def _active(ground: Ground) -> Sequence[tuple[Rule, datetime]]:
    now, policy = ground.clock.now(), ground.settings.retention
    return [(r, now - timedelta(days=days)) for r in RULES if (days := r.days(policy)) is not None]
