"""Side work without a broker: the embedded platform's controller runs the same steps in its own process."""

from __future__ import annotations

import asyncio
import logging

from abruzzi.kit.ground import Budget, Ground
from abruzzi.notifications import tasks as notifications
from abruzzi.workers import steps

logger = logging.getLogger(__name__)
LOOK_SECONDS = 1.0
BUDGET_SECONDS = 20.0


async def dispatch(ground: Ground) -> None:
    """Until it is cancelled. Slow chores do not keep messages waiting."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_again(ground, _messages))
        group.create_task(_again(ground, _chores))


async def _messages(ground: Ground) -> None:
    await steps.handle_messages(ground, Budget(BUDGET_SECONDS))
    await notifications.deliver(ground, Budget(BUDGET_SECONDS))


async def _chores(ground: Ground) -> None:
    for name in (await steps.look(ground)).chores:
        await steps.run_chore(ground, name)


async def _again(ground: Ground, work) -> None:  # type: ignore[no-untyped-def]
    while True:
        try:
            await work(ground)
        except Exception:
            # The database or the object store is away: nothing is lost, look again.
            logger.exception("side work waits")
        await asyncio.sleep(LOOK_SECONDS)
