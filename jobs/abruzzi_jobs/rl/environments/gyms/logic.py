"""Logic for the smallest of models: statements to evaluate, orders to follow, rows to turn around and go on with."""

from __future__ import annotations

import itertools
import random
from typing import Any

from pydantic import Field, StrictInt

from abruzzi.contracts.rollout import Outcome, Task
from abruzzi.contracts.training import Strict
from abruzzi_jobs.rl.environments.answers import scored, stated_answer
from abruzzi_jobs.rl.environments.single_turn import QuestionGym

_NAMES = ("Ada", "Ben", "Cem", "Dia", "Eva", "Fay", "Gil", "Hal", "Ida", "Jon", "Kai", "Lea")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class LogicOptions(Strict):
    size: StrictInt = Field(default=3, ge=2, le=10)
    """Operands of a statement, people of an order, letters of a row, seen numbers of a sequence."""


class Logic(QuestionGym):
    name = "logic"
    summary = "Truth of statements, orders of people, letters backwards, sequences; the answer is one word or number."
    families = ("truth", "order", "reversal", "sequence")
    Options = LogicOptions

    def draw(self, draw: random.Random, family: str) -> dict[str, Any]:
        prompt, answer = _FORMS[family](draw, self.options.size)
        return {"prompt": prompt, "answer": answer}

    def judge(self, task: Task, text: str) -> Outcome:
        """1 for the answer alone or behind `Answer:`, else 0."""
        found, answer = stated_answer(text).lower(), task.data["answer"].lower()
        is_right, is_short = found == answer, bool(found) and len(found.split()) == 1
        detail = "" if is_right else f"{answer} is right, not {found[:40]!r}"
        return scored(self.reference, float(is_right), detail=detail, correct=float(is_right), format=float(is_short))


def _truth(draw: random.Random, size: int) -> tuple[str, str]:
    """`and` binds before `or`, as in Python."""
    parts = [f"{draw.choice(('', 'not '))}{draw.choice(('true', 'false'))}" for _ in range(size)]
    joints = [draw.choice((" and ", " or ")) for _ in range(size - 1)]
    told = "".join(part + joint for part, joint in zip(parts, [*joints, ""], strict=True))
    value = any(
        all(
            part.removeprefix("not ") == ("false" if part.startswith("not ") else "true")
            for part in term.split(" and ")
        )
        for term in told.split(" or ")
    )
    return f"True or false: {told}?", str(value).lower()


def _order(draw: random.Random, size: int) -> tuple[str, str]:
    people = draw.sample(_NAMES, size)
    facts = [f"{a} is older than {b}." for a, b in itertools.pairwise(people)]
    draw.shuffle(facts)
    wanted = draw.choice(("oldest", "youngest"))
    return f"{' '.join(facts)} Who is the {wanted}?", people[0] if wanted == "oldest" else people[-1]


def _reversal(draw: random.Random, size: int) -> tuple[str, str]:
    row = "".join(draw.choice(_LETTERS) for _ in range(size))
    return f"Write backwards: {row}", row[::-1]


def _sequence(draw: random.Random, size: int) -> tuple[str, str]:
    first, step = draw.randint(0, 9), draw.randint(1, 9)
    row = [first + step * place for place in range(size + 1)]
    return f"Which number comes next? {', '.join(map(str, row[:-1]))}", str(row[-1])


_FORMS = {"truth": _truth, "order": _order, "reversal": _reversal, "sequence": _sequence}
