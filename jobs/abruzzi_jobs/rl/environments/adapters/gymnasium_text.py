"""Gymnasium's environments in words: what is observed is told (or drawn, where the environment renders `ansi`), what the policy writes is an action."""

from __future__ import annotations

import json
import random
import re
from typing import Any

from pydantic import Field, StrictInt, StrictStr

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rollout import Outcome, Task, Trajectory
from abruzzi.contracts.training import Strict
from abruzzi_jobs.rl.environments.answers import as_user, scored
from abruzzi_jobs.rl.environments.environment import Environment, Message, Observation, Services, StepResult
from abruzzi_jobs.rl.environments.gym import Gym

_INTEGER = re.compile(r"-?\d+")


class GymnasiumOptions(Strict):
    id: StrictStr = "FrozenLake-v1"
    """As `gymnasium.make` takes it, `module:Name-v0` for those of other packages."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Of `gymnasium.make`."""
    instruction: StrictStr = "Write your next action and nothing else."
    turns: StrictInt = Field(default=100, ge=1)


class Gymnasium(Gym):
    name = "gymnasium"
    summary = "Any environment of Gymnasium whose actions can be written: numbers, texts, JSON; the reward is the sum of its rewards."
    families = ("game",)
    Options = GymnasiumOptions

    def refuse_unless_ready(self) -> None:
        """Makes one, so that an unknown id is told at once."""
        made = _make(self.options.id, self.options.arguments)
        made.close()

    def draw(self, draw: random.Random, family: str) -> dict[str, Any]:
        return {**self.options.model_dump(), "reset_seed": draw.getrandbits(31)}

    def session(self, services: Services = Services()) -> Environment:
        return _Session()

    def score(self, trajectory: Trajectory, messages: tuple[Message, ...], state: dict[str, Any]) -> Outcome:
        total = float(sum(state["rewards"]))
        parts = {"steps": float(len(state["rewards"])), "no_actions": float(state["no_actions"])}
        return scored(self.reference, total, **parts)


class _Session:
    def __init__(self) -> None:
        self._env: Any = None
        self._most = self._turns = self._no_actions = 0
        self._rewards: list[float] = []

    async def reset(self, task: Task, seed: int) -> Observation:
        await self.close()
        self._env = _make(task.data["id"], task.data["arguments"])
        self._most, self._turns, self._no_actions, self._rewards = task.data["turns"], 0, 0, []
        observed, _ = self._env.reset(seed=task.data["reset_seed"])
        asked = f"{task.data['instruction']} {_told_space(self._env.action_space)}"
        return Observation(messages=as_user(self._shown(observed), system=asked))

    async def step(self, action: Message) -> StepResult:
        self._turns += 1
        cut = self._turns >= self._most
        found = _read(self._env.action_space, str(action.get("content") or "").strip())
        if found is None:
            self._no_actions += 1
            said = f"That is no action. {_told_space(self._env.action_space)}"
            return StepResult(observation=Observation(messages=as_user(said)), truncated=cut)
        observed, reward, terminated, truncated, _ = self._env.step(found)
        self._rewards.append(float(reward))
        over = bool(terminated or truncated)
        told = () if over else as_user(self._shown(observed))
        return StepResult(
            observation=Observation(messages=told), terminated=bool(terminated), truncated=not terminated and (cut or over)
        )  # fmt: skip

    async def state(self) -> dict[str, Any]:
        return {"rewards": self._rewards, "no_actions": self._no_actions}

    async def close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    def _shown(self, observed: Any) -> str:
        if self._env.render_mode == "ansi":
            return str(self._env.render())
        return observed if isinstance(observed, str) else str(observed)


def _make(identifier: str, arguments: dict[str, Any]) -> Any:
    try:
        import gymnasium
    except ImportError as error:
        raise AbruzziError(
            "missing_package",
            "The environment gymnasium needs the package of that name, which is not installed here.",
            hint="Install abruzzi-jobs[gymnasium].",
        ) from error
    try:
        return gymnasium.make(identifier, **arguments)
    except (gymnasium.error.Error, ModuleNotFoundError, TypeError) as error:
        raise AbruzziError("bad_options", f"environment gymnasium: {identifier!r} cannot be made: {error}") from error


def _told_space(space: Any) -> str:
    if hasattr(space, "n"):
        low = int(getattr(space, "start", 0))
        return f"Actions are the numbers {low} to {low + int(space.n) - 1}."
    return "Actions are texts." if hasattr(space, "character_set") else f"Actions are JSON for {space}."


def _read(space: Any, text: str) -> Any:
    """None where the text is no action."""
    if hasattr(space, "n"):
        found: Any = int(numbers[-1]) if (numbers := _INTEGER.findall(text)) else None
    elif hasattr(space, "character_set"):
        found = text
    else:
        try:
            import numpy as np

            found = np.asarray(json.loads(text), dtype=space.dtype)
        except (ValueError, TypeError, RecursionError):
            return None
    return found if found is not None and space.contains(found) else None
