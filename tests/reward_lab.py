"""Rewards whose processes are killed (SIGKILL) at random moments while they compute; each reward is asked for once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field

from planted_gyms import answered, ended

from abruzzi.contracts.rollout import Outcome, Status
from abruzzi_jobs.rl.environments import gym
from abruzzi_jobs.rl.rewards import RewardPool

PLANTED = gym("planted_gyms:Planted")
TASK = PLANTED.task(0, 0)
PATIENT_SECONDS = 120.0
"""For rewards that answer, on a machine with much else to do."""
ASKED_A_KILL = 20


async def score(pool: RewardPool, text: str, *, seconds: float = PATIENT_SECONDS, **more: Status) -> Outcome:
    return await pool.score(ended(TASK, **more), answered(text), {}, deadline_seconds=seconds)


@dataclass
class WorkersKilled:
    kills: int = 0
    asked: int = 0
    outcomes: list[Outcome] = field(default_factory=list)
    scored: int = 0
    errors: int = 0
    """Told as such, without a reward: their processes were killed three times."""
    deaths: int = 0
    recovery_seconds: list[float] = field(default_factory=list)
    """From a kill until the next reward."""

    @property
    def lost(self) -> int:
        """Asked for and never answered, or answered by a number that is not the reward."""
        right = {(Status.OK, 1.0), (Status.REWARD_ERROR, None)}
        return self.asked - sum((outcome.status, outcome.reward) in right for outcome in self.outcomes)


async def kill_workers_at_random(*, kills: int, seed: int) -> WorkersKilled:
    draw, found = random.Random(seed), WorkersKilled(asked=kills * ASKED_A_KILL)
    killed_at: float | None = None

    async def ask(pool: RewardPool) -> None:
        nonlocal killed_at
        found.outcomes.append(await score(pool, "pid"))
        if killed_at is not None:
            found.recovery_seconds.append(time.monotonic() - killed_at)
            killed_at = None

    async with RewardPool(workers=2) as pool:
        asked = [asyncio.create_task(ask(pool)) for _ in range(found.asked)]
        while found.kills < kills and not all(task.done() for task in asked):
            await asyncio.sleep(draw.random() * 0.02)
            victims = sorted(worker.pid for worker in pool._living)
            if victims:
                with suppress(ProcessLookupError):
                    os.kill(draw.choice(victims), signal.SIGKILL)
                    found.kills += 1
                    killed_at = time.monotonic()
        await asyncio.gather(*asked)
    found.scored, found.errors, found.deaths = pool.stats.scored, pool.stats.errors, pool.stats.deaths
    return found
