"""The bounded steps that are rung for: by Celery in production, by the dispatcher in the controller otherwise. All state is in Postgres.

Ringing too often, twice at once, or for nothing does no harm: each step claims what is due and leaves the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from abruzzi.contracts.errors import AbruzziError
from abruzzi.events import outbox
from abruzzi.kit.db import transaction
from abruzzi.kit.ground import Budget, Ground, Outcome
from abruzzi.notifications import service as notifications
from abruzzi.workers import chores
from abruzzi.workers.registry import CONSUMERS, Chore, Consumer, wanted_chores

logger = logging.getLogger(__name__)
CHORE_BUDGET_SECONDS = 20.0


class Overtaken(Exception):
    """The claim ran out and another worker has taken the message: nothing of this one's effect may be committed."""


@dataclass(frozen=True, slots=True)
class Due:
    """What waits now."""

    messages: int
    deliveries: int
    chores: tuple[str, ...]


async def look(ground: Ground) -> Due:
    """What the sweeper rings for."""
    now = ground.clock.now()
    async with transaction(ground.sessions) as session:
        names = await chores.due(session, tuple(wanted_chores(ground.settings)), now=now)
        messages = await outbox.count_due(session, now=now)
        return Due(messages, await notifications.count_due(session, now=now), names)


async def handle_messages(ground: Ground, budget: Budget, consumers: Mapping[str, Consumer] = CONSUMERS) -> Outcome:
    """Messages of the outbox, oldest first, until none is due or the time is up."""
    handled = failed = 0
    while not budget.is_spent:
        async with transaction(ground.sessions) as session:
            message = await outbox.claim(session, now=ground.clock.now())
        if message is None:
            return Outcome({"handled": handled, "failed": failed})
        try:
            await _handle(ground, message, consumers)
            handled += 1
        except Overtaken:
            logger.warning("message %d was taken over by another worker", message.id)
        except Exception as error:
            failed += 1
            logger.exception("message %d (%s), try %d of %d", message.id, message.kind, message.tries, outbox.MAX_TRIES)
            async with transaction(ground.sessions) as session:
                now = ground.clock.now()
                await outbox.mark_failed(session, message, f"{type(error).__name__}: {error}", now=now, random=ground.random)  # fmt: skip
    return Outcome({"handled": handled, "failed": failed}, more=True)


async def run_chore(
    ground: Ground, name: str, budget: Budget | None = None, known: Mapping[str, Chore] | None = None
) -> Outcome | None:
    """One step of a chore, if it is due. None when it is not, or when it failed: the error is kept with it."""
    chore = (known if known is not None else wanted_chores(ground.settings)).get(name)
    if chore is None:
        return None
    async with transaction(ground.sessions) as session:
        failures = await chores.claim(session, name, now=ground.clock.now())
    if failures is None:
        return None
    try:
        outcome = await chore.step(ground, budget or Budget(CHORE_BUDGET_SECONDS))
    except Exception as error:
        logger.exception("chore %s", name)
        async with transaction(ground.sessions) as session:
            now = ground.clock.now()
            said = f"{type(error).__name__}: {error}"
            await chores.mark_failed(session, name, said, failures, chore.every_seconds, now=now, random=ground.random)
        return None
    async with transaction(ground.sessions) as session:
        await chores.mark_done(session, name, outcome, chore.every_seconds, now=ground.clock.now())
    return outcome


async def _handle(ground: Ground, message: outbox.Message, consumers: Mapping[str, Consumer]) -> None:
    consumer = consumers.get(message.kind)
    if consumer is None:
        raise AbruzziError(
            "no_consumer",
            f"Nobody handles messages of the kind {message.kind!r}.",
            hint="A newer platform wrote it: upgrade the workers, then retry it.",
        )
    async with transaction(ground.sessions) as session:
        await consumer(ground, session, message)
        if not await outbox.mark_sent(session, message, now=ground.clock.now()):
            raise Overtaken
