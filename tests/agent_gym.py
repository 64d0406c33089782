"""An environment whose agent is a program with OpenAI's client, named by path as a user's own is: `agent_gym:DigitsByAgent`."""

from __future__ import annotations

import random
from typing import Any

import openai

from abruzzi.contracts.rollout import Outcome, Task, Trajectory
from abruzzi_jobs.rl.environments import Message
from abruzzi_jobs.rl.environments.adapters.program import Access, ProgramGym
from abruzzi_jobs.rl.environments.answers import scored


class DigitsByAgent(ProgramGym):
    """The share of digits in what the agent was told, over two requests, the second of which has forgotten the first."""

    name = "digits-by-agent"
    summary = "An agent is told something twice; digits are rewarded."
    families = ("short",)

    def draw(self, draw: random.Random, family: str) -> dict[str, Any]:
        return {"town": draw.randrange(1000)}

    async def play(self, task: Task, access: Access) -> Any:
        told = ""
        async with openai.AsyncOpenAI(base_url=access.base_url, api_key=access.api_key, max_retries=0) as policy:
            for question in ("Weather in", "And the snow in"):
                messages: Any = [{"role": "user", "content": f"{question} {task.data['town']}?"}]
                answer = await policy.chat.completions.create(model=access.model, messages=messages)
                told += answer.choices[0].message.content or ""
        return {"told": told}

    def score(self, trajectory: Trajectory, messages: tuple[Message, ...], state: dict[str, Any]) -> Outcome:
        """Of one that was cut: what the policy said of it."""
        said = "".join(message["content"] for message in messages if message["role"] == "assistant")
        told = (state.get("result") or {}).get("told", said)
        share = sum(character.isdigit() for character in told) / max(1, len(told))
        return scored(self.reference, share, digits=share)
