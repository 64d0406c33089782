"""Rewards of what was played: by the environment's reward, in a process of its own; budgets' penalties."""

from __future__ import annotations

from typing import Any, Protocol

from abruzzi.contracts.rl import RlConfig
from abruzzi.contracts.rollout import Outcome, Status, Trajectory
from abruzzi_jobs.rl.environments.environment import Message
from abruzzi_jobs.rl.objective.budget import penalised
from abruzzi_jobs.rl.rollout.played import Played


class Pool(Protocol):
    async def score(self, trajectory: Trajectory, messages: tuple[Message, ...], state: dict[str, Any]) -> Outcome:
        """As RewardPool.score."""
        ...


class PoolScorer:
    def __init__(self, pool: Pool, config: RlConfig) -> None:
        self._pool, self._config = pool, config

    async def score(self, played: Played) -> Outcome:
        """Without a reward where the trajectory failed: a failure of the platform is no fault of the policy."""
        trajectory = played.trajectory
        if not trajectory.status.counted:
            return Outcome(status=trajectory.status)
        outcome = await self._pool.score(trajectory, played.messages, played.state)
        if trajectory.status is Status.BUDGET:
            return penalised(outcome, self._config.budget_of(trajectory.task.family))
        return outcome
