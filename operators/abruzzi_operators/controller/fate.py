"""Where stages live in the controller's own container they end with it. So before it goes they are asked to save, as by Ctrl-C on `abruzzi up`,
and the next controller lets their runs go on."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from abruzzi.engine.policy import GRACE_SECONDS
from abruzzi.kit.clock import Clock
from abruzzi.kit.db import DATABASE_ERRORS, Sessions, transaction
from abruzzi.runs import steer
from abruzzi_operators.supervisor.attempts import living_attempts, request_stops

logger = logging.getLogger("abruzzi.controller")

SAVE_SECONDS = GRACE_SECONDS + 15.0
"""The engine's grace, and time to write down how the attempts ended. The container's own grace must be longer."""
POLL_SECONDS = 0.2
RETRY_SECONDS = 0.5


async def resume_runs(sessions: Sessions, clock: Clock) -> None:
    """Runs that an earlier end of the controller interrupted go on. Returns when the database could be told."""
    while True:
        try:
            async with transaction(sessions) as session:
                count = await steer.resume_interrupted(session, now=clock.now())
        except DATABASE_ERRORS as error:
            logger.warning("interrupted runs wait (%s)", type(error).__name__)
            await asyncio.sleep(RETRY_SECONDS)
            continue
        logger.info("%d interrupted runs go on", count)
        return


async def save_runs(
    sessions: Sessions, clock: Clock, attempts: Path, *, hurry: asyncio.Event, seconds: float = SAVE_SECONDS
) -> None:
    """Returns when every attempt has saved and its end is written down, when `hurry` is set, or when the time is over.
    The controller's loop must run meanwhile."""
    try:
        async with transaction(sessions) as session:
            count = await steer.interrupt_all(session, now=clock.now())
        logger.info("asked %d runs to save and stop", count)
    except DATABASE_ERRORS as error:
        logger.warning("the runs could not be told (%s); their processes are", type(error).__name__)
        await asyncio.to_thread(request_stops, attempts, grace_seconds=GRACE_SECONDS)
    deadline = asyncio.get_running_loop().time() + seconds
    while not hurry.is_set() and asyncio.get_running_loop().time() < deadline:
        if not await asyncio.to_thread(living_attempts, attempts) and await _is_settled(sessions):
            return
        await asyncio.sleep(POLL_SECONDS)


async def _is_settled(sessions: Sessions) -> bool:
    try:
        async with transaction(sessions) as session:
            return not await steer.unsettled(session)
    except DATABASE_ERRORS:
        return True  # nobody can write it down now; the next controller sees how the attempts ended
