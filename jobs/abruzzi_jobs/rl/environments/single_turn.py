"""Sessions of one question and one answer, and gyms whose tasks are such: `data` has `prompt`, `system` where there is one, and what the reward needs."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from abruzzi.contracts.rollout import Outcome, Task, Trajectory
from abruzzi_jobs.rl.environments.answers import as_assistant, as_user, last_said
from abruzzi_jobs.rl.environments.environment import Environment, Message, Observation, Services, StepResult
from abruzzi_jobs.rl.environments.gym import Gym


class SingleTurn:
    """Ends with the policy's first message."""

    async def reset(self, task: Task, seed: int) -> Observation:
        return Observation(messages=as_user(task.data["prompt"], system=task.data.get("system", "")))

    async def step(self, action: Message) -> StepResult:
        return StepResult(observation=Observation(messages=()), terminated=True)

    async def state(self) -> dict[str, Any]:
        return {}

    async def close(self) -> None:
        return None


class QuestionGym(Gym):
    """`answer` in the data is one that is right."""

    def session(self, services: Services = Services()) -> Environment:
        return SingleTurn()

    def solution(self, task: Task) -> tuple[Message, ...]:
        answer = task.data.get("answer")
        return (as_assistant(str(answer)),) if answer is not None else ()

    def score(self, trajectory: Trajectory, messages: tuple[Message, ...], state: dict[str, Any]) -> Outcome:
        return self.judge(trajectory.task, last_said(messages))

    @abstractmethod
    def judge(self, task: Task, text: str) -> Outcome:
        """`text`: the policy's answer."""
