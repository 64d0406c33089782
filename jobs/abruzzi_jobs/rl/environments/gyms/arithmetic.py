"""Sums for the smallest of models: a question of a few tokens, an answer of one or two."""

from __future__ import annotations

import random
import re
from typing import Any

from pydantic import Field, StrictInt

from abruzzi.contracts.rollout import Outcome, Task
from abruzzi.contracts.training import Strict
from abruzzi_jobs.rl.environments.answers import scored, stated_answer
from abruzzi_jobs.rl.environments.single_turn import QuestionGym

_NUMBER = re.compile(r"[-−]?[0-9]{1,12}")


class ArithmeticOptions(Strict):
    digits: StrictInt = Field(default=1, ge=1, le=6)
    """Of each number."""
    terms: StrictInt = Field(default=2, ge=2, le=8)


class Arithmetic(QuestionGym):
    name = "arithmetic"
    summary = "Addition, subtraction, multiplication and comparison of small numbers; the answer is a number and nothing else."
    families = ("addition", "subtraction", "multiplication", "comparison")
    Options = ArithmeticOptions

    def draw(self, draw: random.Random, family: str) -> dict[str, Any]:
        numbers = [draw.randrange(10**self.options.digits) for _ in range(self.options.terms)]
        prompt, answer = _FORMS[family](numbers)
        return {"prompt": prompt, "answer": str(answer)}

    def judge(self, task: Task, text: str) -> Outcome:
        """1 for the number alone or behind `Answer:`, else 0."""
        found = stated_answer(text)
        is_number = _NUMBER.fullmatch(found) is not None
        is_right = is_number and int(found.replace("−", "-")) == int(task.data["answer"])
        detail = "" if is_right else f"{task.data['answer']} is right, not {found[:40]!r}"
        return scored(self.reference, float(is_right), detail=detail, correct=float(is_right), format=float(is_number))


def _addition(numbers: list[int]) -> tuple[str, int]:
    return f"{' + '.join(map(str, numbers))} =", sum(numbers)


def _subtraction(numbers: list[int]) -> tuple[str, int]:
    first, *rest = sorted(numbers, reverse=True)
    return f"{' - '.join(map(str, (first, *rest)))} =", first - sum(rest)


def _multiplication(numbers: list[int]) -> tuple[str, int]:
    product = 1
    for number in numbers:
        product *= number
    return f"{' * '.join(map(str, numbers))} =", product


def _comparison(numbers: list[int]) -> tuple[str, int]:
    return f"Which is the largest? {', '.join(map(str, numbers))}", max(numbers)


_FORMS = {
    "addition": _addition, "subtraction": _subtraction, "multiplication": _multiplication, "comparison": _comparison,
}  # fmt: skip
