"""Rewards: computed in processes that can be killed, so that a verifier that hangs stops one trajectory and nothing else."""

from abruzzi_jobs.rl.rewards.pool import PoolStats, RewardPool

__all__ = ["PoolStats", "RewardPool"]
