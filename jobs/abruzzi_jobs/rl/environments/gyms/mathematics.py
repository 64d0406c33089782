"""Problems whose results sympy knows, and answers that math-verify compares: `1/2`, `\\frac{1}{2}` and `0.5` are one number."""

from __future__ import annotations

import random
from typing import Any

from abruzzi.contracts.rollout import Outcome, Task
from abruzzi_jobs.data.validation.mathematics import answers_agree
from abruzzi_jobs.instruct import mathematics
from abruzzi_jobs.instruct.prompt import Prompt
from abruzzi_jobs.instruct.rules import is_right
from abruzzi_jobs.rl.environments.answers import scored
from abruzzi_jobs.rl.environments.single_turn import QuestionGym


class Mathematics(QuestionGym):
    name = "mathematics"
    summary = (
        "Arithmetic, fractions, equations, divisors, derivatives, roots and per cent; steps first, then `Answer: …`."
    )
    families = mathematics.KINDS

    def refuse_unless_ready(self) -> None:
        """The first comparison builds a grammar, which takes seconds: here, and not under the deadline of a score."""
        answers_agree("1", "1")

    def draw(self, draw: random.Random, family: str) -> dict[str, Any]:
        question, result = mathematics.drawn(family, draw)
        return {"prompt": question, "result": result, "answer": f"Answer: {result}"}

    def judge(self, task: Task, text: str) -> Outcome:
        """1 where the result is right and no step states a wrong equation."""
        prompt = Prompt(
            id=task.id,
            text=task.data["prompt"],
            source=self.name,
            licence="",
            domain="mathematics",
            check="mathematics",
            answer=task.data["result"],
        )
        verdict, why = is_right(prompt, text) if text else (False, "no answer")
        return scored(
            self.reference,
            float(verdict is True),
            detail=why,
            correct=float(verdict is True),
            format=float("Answer:" in text),
        )
