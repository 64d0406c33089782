"""What the supervisor does to the database, each in a process of its own, so that the supervisor itself stays small.

Both report on standard error, which is logs/database.log.
"""

from __future__ import annotations

import asyncio
import sys

from abruzzi.kit.clock import SystemClock
from abruzzi.kit.db import create_engine, create_sessions, transaction
from abruzzi.kit.settings import Settings
from abruzzi.kit.tables import REGISTERED
from abruzzi.migrations.__main__ import main as migrate
from abruzzi.runs import steer

assert REGISTERED  # importing the module registers every noun's tables, which rows of runs refer to
POLL_SECONDS = 0.1


def prepare() -> int:
    """Before API and controller start: the newest schema; runs that the last Ctrl-C interrupted go on."""
    migrate()
    return asyncio.run(_resume())


def interrupt() -> int:
    """Ask every run to save and stop; returns when the controller has seen to it. The supervisor bounds the time."""
    return asyncio.run(_interrupt())


async def _resume() -> int:
    engine = create_engine(Settings().require("controller_database_url"), pool_size=1)
    async with transaction(create_sessions(engine)) as session:
        count = await steer.resume_interrupted(session, now=SystemClock().now())
    await engine.dispose()
    sys.stderr.write(f"{count} interrupted runs go on\n")
    return 0


async def _interrupt() -> int:
    engine = create_engine(Settings().require("controller_database_url"), pool_size=1)
    sessions = create_sessions(engine)
    async with transaction(sessions) as session:
        count = await steer.interrupt_all(session, now=SystemClock().now())
    sys.stderr.write(f"asked {count} runs to save and stop\n")
    while True:
        async with transaction(sessions) as session:
            if not await steer.unsettled(session):
                break
        await asyncio.sleep(POLL_SECONDS)
    await engine.dispose()
    return 0
