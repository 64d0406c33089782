"""An agent that goes by the task's plan. What it does next follows from the conversation alone, so that it can be asked anywhere and again."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from abruzzi.contracts.agent import PlannedCall, Task
from abruzzi_jobs.chat.request import STANDIN_GENERATOR
from abruzzi_jobs.synthesis.players.mistakes import MISTAKES, mistaken
from abruzzi_jobs.synthesis.user.script import was_told

_AGAIN = ("unavailable", "rate_limited")
"""Errors of a world after which nothing was done."""


class ScriptedAgent:
    """Repeats calls that were not served; asks for facts that it lacks. `error_rate`: how often a task is spoilt, by `seed` and task. It is no language
    model, and says so: `generator`."""

    generator = STANDIN_GENERATOR
    is_llm = False

    def __init__(self, task: Task, *, error_rate: float = 0.0, seed: int = 0) -> None:
        draw = random.Random(f"scripted/{seed}/{task.id}")
        self.task = task
        self.mistake = draw.choice(MISTAKES) if draw.random() < error_rate else None
        self.plan: Sequence[PlannedCall] = task.plan
        self.answer = task.reference_answer
        if self.mistake is not None:
            self.plan, self.answer = mistaken(task, self.mistake, draw)
        self._facts = {fact.name: fact for fact in task.facts}

    def reply(self, messages: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The assistant's message that comes next."""
        made, answered = _calls(messages)
        done = self._done(made, answered)
        if done == len(self.plan):
            return {"role": "assistant", "content": self.answer}
        call = self.plan[done]
        lacking = [self._facts[name] for name in call.needs if not was_told(self._facts[name], messages)]
        if any(fact.told == "asked" for fact in lacking):
            words = " and ".join(
                dict.fromkeys(f"the {fact.words[0]}" if fact.words[0] != "how much" else "how much" for fact in lacking)
            )
            return {
                "role": "assistant",
                "content": f"Before I go on I need to know {words}. Could you tell me {words}?",
            }
        if lacking:
            return {"role": "assistant", "content": "That part is done."}
        function = {"name": call.tool.name, "arguments": json.dumps(call.arguments)}
        return {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": f"call_{len(made)}", "type": "function", "function": function}],
        }

    def _done(self, made: Sequence[dict[str, Any]], answered: dict[str, str]) -> int:
        """How many calls of the plan have been served. Its own calls come in order, each repeated until it is."""
        done = 0
        for call in made:
            text = answered.get(call["id"])
            if text is not None and done < len(self.plan) and _code(text) not in _AGAIN:
                done += 1
        return done


def _calls(messages: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    made = [call for message in messages for call in message.get("tool_calls") or ()]
    answered = {m["tool_call_id"]: str(m.get("content") or "") for m in messages if m.get("role") == "tool"}
    return made, answered


def _code(text: str) -> str | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    error = found.get("error") if isinstance(found, dict) else None
    return error.get("code") if isinstance(error, dict) else None
