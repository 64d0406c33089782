"""Sets a process' clock by Postgres."""

from __future__ import annotations

import asyncio
import logging

import psycopg
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from abruzzi.kit.clock import DatabaseClock
from abruzzi.kit.db import Sessions, transaction

logger = logging.getLogger(__name__)
ASK_SECONDS = 60.0
"""Ordinary clocks drift by some milliseconds in this time."""
AWAY_SECONDS = 1.0
_QUESTIONS = 3
"""The quickest answer counts."""
_SLOW_SECONDS = 1.0
"""An answer that took longer says too little."""


async def ask_time(sessions: Sessions, clock: DatabaseClock) -> bool:
    """Whether the clock was set. Raises what the database raises."""
    answers: list[tuple[float, float, float]] = []
    async with transaction(sessions) as session:
        await session.connection()  # connecting takes time, and is none of the answer's
        for _ in range(_QUESTIONS):
            asked_at = clock.ticks()
            told = await session.execute(text("SELECT extract(epoch FROM clock_timestamp())"))
            answers.append((clock.ticks() - asked_at, asked_at, float(told.scalar_one())))
    took, asked_at, seconds = min(answers)
    if took > _SLOW_SECONDS:
        return False
    clock.set(seconds, asked_at=asked_at, answered_at=asked_at + took)
    return True


async def keep_time(sessions: Sessions, clock: DatabaseClock) -> None:
    """For as long as the process lives."""
    while True:
        try:
            is_set = await ask_time(sessions, clock)
        except (SQLAlchemyError, psycopg.Error, OSError) as error:
            logger.debug("the clock goes on by itself (%s)", type(error).__name__)
            is_set = False
        await asyncio.sleep(ASK_SECONDS if is_set else AWAY_SECONDS)
