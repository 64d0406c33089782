"""The interface of an environment: Gymnasium's meaning, messages and tools as observations (reference/rl.md 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from abruzzi.contracts.rollout import Outcome, Task, Trajectory
from abruzzi_jobs.chat.request import ChatBackend

Message = dict[str, Any]
"""Of a chat, as in `abruzzi_jobs.sft.conversation`: role, content, tool_calls, tool_call_id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    messages: tuple[Message, ...]
    """Since the last action, to be appended; at `reset` the whole beginning: system, user."""
    tools: tuple[dict[str, Any], ...] = ()
    """Declarations ({"name", "description", "parameters": JSON Schema}); only at `reset`, and where it restarts."""
    restarts: bool = False
    """The history is another than the one so far: `messages` are the whole of it, and the policy goes on from them alone, in a new sequence of tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    observation: Observation
    terminated: bool = False
    """The task is over, by the environment's own rules."""
    truncated: bool = False
    """Cut: a limit that is not the task's (turns)."""
    info: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What sessions may ask besides themselves, shared by all of them."""

    backends: Mapping[str, ChatBackend] = field(default_factory=dict)
    """By role: `judge`, `attacker`, `user`. An environment says in `Gym.roles` which it asks; those that are absent it does without, and its reward
    says so."""


class Environment(Protocol):
    """One session: one trajectory's. Made by `Gym.session`, closed exactly once, whatever happened."""

    async def reset(self, task: Task, seed: int) -> Observation: ...

    async def step(self, action: Message) -> StepResult:
        """`action`: the policy's message."""
        ...

    async def state(self) -> dict[str, Any]:
        """What the reward needs to know of the end; JSON. Judges are asked here, so that the reward is pure."""
        ...

    async def close(self) -> None: ...


class Reward(Protocol):
    """Scores what ended. Runs in a process of its own that is killed at its deadline, so: a pure function of its arguments, made by the registry's
    reference alone."""

    @property
    def reference(self) -> str:
        """`name@version`, of the reward's code and data."""
        ...

    def score(self, trajectory: Trajectory, messages: tuple[Message, ...], state: dict[str, Any]) -> Outcome: ...
