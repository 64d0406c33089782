"""All side work by name: who handles which message of the outbox, and which chores come round how often."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.artifacts import tasks as artifacts
from abruzzi.events.outbox import Message
from abruzzi.kit.ground import Budget, Ground, Outcome
from abruzzi.kit.settings import Settings
from abruzzi.notifications import tasks as notifications
from abruzzi.runs import exports
from abruzzi.usage import tasks as usage
from abruzzi.workers import retention

Consumer = Callable[[Ground, AsyncSession, Message], Awaitable[None]]
"""Writes its effect into the given transaction, which also marks the message as sent: both or neither."""
Step = Callable[[Ground, Budget], Awaitable[Outcome]]
"""One bounded piece of work; doing it twice does no more than doing it once."""

CONSUMERS: Mapping[str, Consumer] = {
    "run.submitted": notifications.announce_run,
    "run.ended": notifications.announce_run,
    "artifact.corrupt": notifications.announce_corrupt,
    exports.KIND: exports.export,
}


async def _provision_grafana(ground: Ground, budget: Budget) -> Outcome:
    # Its client comes with the extra `workers`, which an embedded platform need not have.
    from abruzzi.workers import grafana

    return await grafana.provision(ground, budget)


@dataclass(frozen=True, slots=True)
class Chore:
    name: str
    step: Step
    every_seconds: float
    wanted: Callable[[Settings], bool] = lambda settings: True


CHORES = (
    Chore("verification", artifacts.verify, every_seconds=3600.0),
    Chore("retention", retention.retain, every_seconds=3600.0),
    Chore("usage", usage.roll_up, every_seconds=600.0),
    Chore("grafana", _provision_grafana, every_seconds=600.0, wanted=lambda settings: settings.grafana_url is not None),
)


def wanted_chores(settings: Settings) -> dict[str, Chore]:
    return {chore.name: chore for chore in CHORES if chore.wanted(settings)}
