"""Environments: what the policy acts in. One interface; registry, adapters and the shipped gyms beside it.

`gym("arithmetic")` gives tasks (pure functions of seed and index), sessions (reset, step, state, close) and the reward of what ended.
"""

from abruzzi_jobs.rl.environments.environment import Environment, Message, Observation, Reward, Services, StepResult
from abruzzi_jobs.rl.environments.gym import Gym, Split
from abruzzi_jobs.rl.environments.registry import gym, named_gyms

__all__ = [
    "Environment",
    "Gym",
    "Message",
    "Observation",
    "Reward",
    "Services",
    "Split",
    "StepResult",
    "gym",
    "named_gyms",
]
