"""From scored groups to advantages: only members that count have one (reference: status ≠ OK never enters r̄)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from abruzzi.contracts.objective import LengthRewardConfig, ObjectiveConfig
from abruzzi.contracts.rollout import Group, Trajectory

_STD_EPSILON = 1e-4
_SAME = 1e-9
"""Rewards closer than this are the same: what remains is the mean's rounding."""


@dataclass(frozen=True, slots=True)
class Sample:
    trajectory: Trajectory
    reward: float
    """With the length reward, where there is one."""
    advantage: float


def samples_of(group: Group, config: ObjectiveConfig, *, iteration: int) -> tuple[Sample, ...]:
    """The group's members that count, in order."""
    members = group.counted
    rewards = [reward_of(t) for t in members]
    if config.length_reward is not None and iteration >= config.length_reward.warmup_iterations:
        rewards = with_length_reward(members, rewards, config.length_reward)
    advantages = advantages_of(rewards, over_std=config.advantage == "mean_std")
    return tuple(Sample(t, r, a) for t, r, a in zip(members, rewards, advantages, strict=True))


def advantages_of(rewards: Sequence[float], *, over_std: bool = False) -> list[float]:
    """r_i − r̄, r_i itself among the mean's; exactly 0 where all are the same. `over_std`: over the sample's standard deviation + 1e-4, as GRPO."""
    if not rewards or max(rewards) - min(rewards) <= _SAME:
        return [0.0] * len(rewards)
    mean = math.fsum(rewards) / len(rewards)
    scale = 1.0
    if over_std:
        scale = math.sqrt(math.fsum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1)) + _STD_EPSILON
    return [(r - mean) / scale for r in rewards]


def has_variance(samples: Sequence[Sample]) -> bool:
    return any(sample.advantage != 0 for sample in samples)


def with_length_reward(
    members: Sequence[Trajectory], rewards: Sequence[float], config: LengthRewardConfig
) -> list[float]:
    """λ = 0.5 − (length − min) / (max − min) inside the group; right: λ, wrong: min(0, λ); nothing where all are of one length."""
    right = [t.outcome.components.get(config.component) if t.outcome else None for t in members]
    lengths = [t.policy_tokens for t in members]
    if not lengths or None in right or max(lengths) == min(lengths):
        return list(rewards)
    found = []
    for reward, length, value in zip(rewards, lengths, right, strict=True):
        share = 0.5 - (length - min(lengths)) / (max(lengths) - min(lengths))
        found.append(reward + config.weight * (share if value is not None and value >= 0.5 else min(0.0, share)))
    return found


def reward_of(trajectory: Trajectory) -> float:
    """Raises ValueError for one without: it does not count and must not get here."""
    if trajectory.outcome is None or trajectory.outcome.reward is None:
        raise ValueError(f"trajectory {trajectory.id}: it has no reward; take Group.counted")
    return trajectory.outcome.reward
