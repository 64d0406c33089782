"""Answers under verifiable instructions. Reward: rule ∧ judge ∧ ¬hack (reference/rl.md 7.6); without a judge, rule ∧ ¬hack, and the outcome says so."""

from __future__ import annotations

import random
from typing import Any

from pydantic import Field, StrictInt

from abruzzi.contracts.rollout import Outcome, Status, Task, Trajectory
from abruzzi.contracts.training import Strict
from abruzzi_jobs.chat.request import ChatBackend
from abruzzi_jobs.instruct.judge import judge
from abruzzi_jobs.instruct.prompt import Prompt
from abruzzi_jobs.rl.environments.answers import as_assistant, last_said, scored
from abruzzi_jobs.rl.environments.environment import Environment, Message, Services, StepResult
from abruzzi_jobs.rl.environments.gym import Gym
from abruzzi_jobs.rl.environments.gyms.instructions.hacks import hacks_of
from abruzzi_jobs.rl.environments.gyms.instructions.rules import draw_rules, holds, told
from abruzzi_jobs.rl.environments.gyms.instructions.short import FORMS, draw_short, follows
from abruzzi_jobs.rl.environments.single_turn import SingleTurn

PASSES_FROM = 0.5
"""Of a judge's score."""
_ASKED = (
    "Tell a friend about {}.", "Explain {} to a child.", "Write a short note about {}.", "Describe {} to somebody who has never seen it.",
    "Give advice about {}.", "Write about the history of {}.", "Compare {} with something else.", "Say what you like about {}.",
)  # fmt: skip
_TOPICS = (
    "bread", "bicycles", "the sea", "libraries", "tea", "maps", "bees", "bridges", "trains", "mountains", "letters", "clocks", "gardens", "chess",
    "volcanoes", "kites", "rivers", "markets", "cats", "winter", "music lessons", "lighthouses", "salt", "paper", "the moon", "windmills", "cheese",
    "football", "umbrellas", "night buses",
)  # fmt: skip


def draw_request(draw: random.Random) -> str:
    """Something that one may ask an assistant, without rules."""
    return draw.choice(_ASKED).format(draw.choice(_TOPICS))


class InstructionOptions(Strict):
    rules: StrictInt = Field(default=2, ge=1, le=4)
    """At most, for one answer of the family `general`."""


class _Judged(SingleTurn):
    """Asks the judge about the answer, where there is one."""

    def __init__(self, backend: ChatBackend | None) -> None:
        self._backend = backend
        self._task: Task | None = None
        self._said = ""

    async def reset(self, task: Task, seed: int):
        self._task = task
        return await super().reset(task, seed)

    async def step(self, action: Message) -> StepResult:
        self._said = str(action.get("content") or "")
        return await super().step(action)

    async def state(self) -> dict[str, Any]:
        if self._backend is None or self._task is None or self._task.family != "general" or not self._said.strip():
            return {}
        asked = self._task.data["request"]
        prompt = Prompt(id=self._task.id, text=asked, source=self._task.environment, licence="", domain="instructions")
        found = await judge(self._backend, prompt, self._said, control_passes_from=PASSES_FROM)
        return {"judge": {"score": found.score, "reasons": list(found.reasons), "generator": found.generator}}


class Instructions(Gym):
    name = "instructions"
    summary = "Answers that have to follow rules of length, words, letters and form; rule and judge and no hack."
    families = ("short", "general")
    roles = ("judge",)
    Options = InstructionOptions

    def draw(self, draw: random.Random, family: str) -> dict[str, Any]:
        if family == "short":
            short = draw_short(draw)
            form = FORMS[short["form"]]
            return {"prompt": form.text(short), "short": short, "answer": form.example(short)}
        request = draw_request(draw)
        rules = draw_rules(draw, draw.randint(1, self.options.rules))
        return {"prompt": " ".join([request, *map(told, rules)]), "request": request, "rules": rules}

    def session(self, services: Services = Services()) -> Environment:
        return _Judged(services.backends.get("judge"))

    def solution(self, task: Task) -> tuple[Message, ...]:
        return (as_assistant(task.data["answer"]),) if "answer" in task.data else ()

    def score(self, trajectory: Trajectory, messages: tuple[Message, ...], state: dict[str, Any]) -> Outcome:
        task, text = trajectory.task, last_said(messages)
        if task.family == "short":
            is_right = float(follows(task.data["short"], text))
            return scored(self.reference, is_right, rule=is_right)
        broken = [told(rule) for rule in task.data["rules"] if not holds(rule, text)]
        hacks = hacks_of(task.data["prompt"], text, follows=not broken)
        followed = float(not broken and bool(text))
        parts = {"rule": followed, "rules": 1 - len(broken) / len(task.data["rules"]), "hack": float(bool(hacks))}
        details = [f"broken: {' '.join(broken)}"] if broken else []
        details += [f"hack: {', '.join(hacks)}"] if hacks else []
        verdict = 1.0
        if (said := state.get("judge")) is not None:
            if said["score"] is None:
                return Outcome(
                    status=Status.REWARD_ERROR, version=self.reference, detail=f"judge: {'; '.join(said['reasons'])}"
                )
            verdict = float(said["score"] >= PASSES_FROM)
            parts["judge"] = said["score"]
            details += [f"judge: {'; '.join(said['reasons'])}"] if not verdict else []
        reward = followed * verdict * (1 - parts["hack"])
        return scored(self.reference, reward, detail="; ".join(details) or _unjudged(state), **parts)


def _unjudged(state: dict[str, Any]) -> str:
    return "" if "judge" in state else "no judge was asked"
