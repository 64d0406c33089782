"""The interface of an environment: Gymnasium's meaning, messages and tools as observations (reference/rl.md 3.1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from abruzzi.contracts.rollout import Outcome, Task, Trajectory

Message = dict[str, Any]
"""Of a chat, as in `abruzzi_jobs.sft.conversation`: role, content, tool_calls, tool_call_id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    messages: tuple[Message, ...]
    """Since the last action, to be appended; at `reset` the whole beginning: system, user."""
    tools: tuple[dict[str, Any], ...] = ()
    """Declarations (JSON Schema functions); only at `reset`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    observation: Observation
    terminated: bool = False
    """The task is over, by the environment's own rules."""
    truncated: bool = False
    """Cut: a limit that is not the task's (turns)."""
    info: dict[str, Any] = field(default_factory=dict)


class Environment(Protocol):
    """One session: one trajectory's. Made by a registry's factory, closed exactly once."""

    async def reset(self, task: Task, seed: int) -> Observation: ...

    async def step(self, action: Message) -> StepResult:
        """`action`: the policy's message."""
        ...

    async def state(self) -> dict[str, Any]:
        """What the reward needs to know of the end; JSON."""
        ...

    async def close(self) -> None: ...


class Reward(Protocol):
    """Scores what ended. Runs in a process of its own that is killed at its deadline, so: picklable, no shared state."""

    version: str

    def score(self, trajectory: Trajectory, messages: tuple[Message, ...], state: dict[str, Any]) -> Outcome: ...
