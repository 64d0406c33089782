"""Environments of bench/rl_curves.py, small enough for a policy that has read 400 thousand tokens."""

from __future__ import annotations

import json
import random
import re
from typing import Any

from abruzzi.contracts.rollout import Outcome, Task, Trajectory
from abruzzi_jobs.rl.environments import Message
from abruzzi_jobs.rl.environments.answers import as_assistant, as_user, last_said, scored
from abruzzi_jobs.rl.environments.environment import Environment, Observation, Services, StepResult
from abruzzi_jobs.rl.environments.gym import Gym
from abruzzi_jobs.rl.environments.gyms.arithmetic import Arithmetic
from abruzzi_jobs.rl.environments.gyms.instructions.short import WORDS
from abruzzi_jobs.rl.environments.single_turn import QuestionGym

TOOL = {
    "name": "price",
    "description": "Price of a thing.",
    "parameters": {"type": "object", "properties": {"thing": {"type": "string"}}, "required": ["thing"]},
}


class Shop(Gym):
    """One call of one tool, and its result said: half of the reward for the right call, the other half for the right answer after it."""

    name = "shop"
    summary = "What does a thing cost? A tool knows."
    families = ("price",)

    def draw(self, draw: random.Random, family: str) -> dict[str, Any]:
        prices = {thing: draw.randrange(10) for thing in WORDS}
        thing = draw.choice(WORDS)
        return {"prompt": f"What is the price of {thing}?", "thing": thing, "prices": prices}

    def identity(self, data: Any) -> str:
        return json.dumps(data, sort_keys=True)

    def session(self, services: Services = Services()) -> Environment:
        return _Counter()

    def solution(self, task: Task) -> tuple[Message, ...]:
        call = {
            "id": "functions.price:0", "type": "function",
            "function": {"name": "price", "arguments": json.dumps({"thing": task.data["thing"]})},
        }  # fmt: skip
        price = str(task.data["prices"][task.data["thing"]])
        asked = {"role": "assistant", "content": "", "tool_calls": [call]}
        return asked, {"role": "tool", "tool_call_id": call["id"], "content": price}, as_assistant(price)

    def score(self, trajectory: Trajectory, messages: tuple[Message, ...], state: dict[str, Any]) -> Outcome:
        right = trajectory.task.data["thing"]
        called = float(right in state["asked"])
        said = called * float(last_said(messages) == str(trajectory.task.data["prices"][right]))
        return scored(self.reference, (called + said) / 2, called=called, said=said)


class _Counter:
    """A session at it."""

    def __init__(self) -> None:
        self._prices: dict[str, int] = {}
        self._asked: list[str] = []

    async def reset(self, task: Task, seed: int) -> Observation:
        self._prices = task.data["prices"]
        return Observation(messages=as_user(task.data["prompt"]), tools=(TOOL,))

    async def step(self, action: Message) -> StepResult:
        calls = action.get("tool_calls") or ()
        answers = tuple({"role": "tool", "tool_call_id": call["id"], "content": self._answer(call)} for call in calls)
        return StepResult(observation=Observation(messages=answers), terminated=not calls)

    async def state(self) -> dict[str, Any]:
        return {"asked": self._asked}

    async def close(self) -> None:
        return None

    def _answer(self, call: dict[str, Any]) -> str:
        try:
            thing = str(json.loads(call["function"]["arguments"])["thing"])
        except (ValueError, KeyError, TypeError):
            return "What thing?"
        self._asked.append(thing)
        return str(self._prices.get(thing, "not sold here"))


class Mentions(QuestionGym):
    """A verifier that can be had by saying more: the right number anywhere in the answer will do."""

    name = "mentions"
    summary = "The larger of two numbers is to be among those that are said."
    families = ("comparison",)

    def draw(self, draw: random.Random, family: str) -> dict[str, Any]:
        numbers = [draw.randrange(10) for _ in range(2)]
        return {"prompt": f"Which is the largest? {', '.join(map(str, numbers))}", "answer": str(max(numbers))}

    def judge(self, task: Task, text: str) -> Outcome:
        """The component `alone` is what a strict verifier says."""
        found = re.findall(r"[0-9]+", text)
        return scored(
            self.reference, float(task.data["answer"] in found), alone=float(text.strip() == task.data["answer"])
        )


class Three(Arithmetic):
    """Which of three numbers is the largest: what the critic judges, while the environment knows."""

    name = "three"
    summary = "The largest of three numbers."
    families = ("largest",)

    def draw(self, draw: random.Random, family: str) -> dict[str, Any]:
        numbers = [draw.randrange(10) for _ in range(3)]
        return {"prompt": f"Which is the largest? {', '.join(map(str, numbers))}", "answer": str(max(numbers))}
