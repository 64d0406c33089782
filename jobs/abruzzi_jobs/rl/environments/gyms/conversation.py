"""Requests that nothing can verify. Its own reward only says whether there is an answer at all; what it is worth, a critic's comparison does
(`reward = "rubric"`, docs/how-to/reward-with-rubrics.md)."""

from __future__ import annotations

import random
from typing import Any

from abruzzi.contracts.rollout import Outcome, Task
from abruzzi_jobs.rl.environments.answers import scored
from abruzzi_jobs.rl.environments.gyms.instructions.hacks import hacks_of
from abruzzi_jobs.rl.environments.gyms.instructions.instructions import draw_request
from abruzzi_jobs.rl.environments.single_turn import QuestionGym


class Conversation(QuestionGym):
    name = "conversation"
    summary = (
        'Open requests (tell, explain, advise, compare); 1 for an answer that is one, so give it reward = "rubric".'
    )
    families = ("general",)

    def draw(self, draw: random.Random, family: str) -> dict[str, Any]:
        return {"prompt": draw_request(draw)}

    def judge(self, task: Task, text: str) -> Outcome:
        hacks = hacks_of(task.data["prompt"], text, follows=True)
        detail = f"hack: {', '.join(hacks)}" if hacks else "" if text else "nothing was said"
        return scored(self.reference, float(bool(text) and not hacks), detail=detail, hack=float(bool(hacks)))
