"""Plans that go wrong, for agents that shall be rejected: what models do wrong, by rule and seed."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any, Literal

from abruzzi.contracts.agent import AnswerClause, PlannedCall, Task

Mistake = Literal["does_nothing", "stops_early", "wrong_value", "wrong_answer"]
MISTAKES: tuple[Mistake, ...] = ("does_nothing", "stops_early", "wrong_value", "wrong_answer")
_NUMBER = re.compile(r"\d+")


def mistaken(task: Task, kind: Mistake, draw: random.Random) -> tuple[Sequence[PlannedCall], str]:
    """The plan and the answer, spoilt. A claim that all is done goes with it: that it is false is for the judge to find."""
    done = "It is done."
    if task.is_impossible or kind == "does_nothing":
        return (), done
    if kind == "stops_early":
        return task.plan[:-1], _wrong(task)
    if kind == "wrong_value":
        changed = [n for n, call in enumerate(task.plan) if _spoilt(call.arguments) is not None]
        if changed:
            number = changed[-1]
            call = task.plan[number]
            spoilt = call.model_copy(update={"arguments": _spoilt(call.arguments)})
            return (*task.plan[:number], spoilt, *task.plan[number + 1 :]), _wrong(task)
    if any(isinstance(clause, AnswerClause) for clause in task.rubric):
        return task.plan, _wrong(task)
    return task.plan[:-1], done


def _wrong(task: Task) -> str:
    """Says nothing of what it should: every number is another, every text is left out."""
    if not any(isinstance(clause, AnswerClause) for clause in task.rubric):
        return task.reference_answer
    numbers = [
        str(int(clause.number) + 7)
        for clause in task.rubric
        if isinstance(clause, AnswerClause) and clause.number is not None
    ]
    return f"It is done. {' and '.join(numbers)}" if numbers else "It is done, though I do not remember what it said."


def _spoilt(arguments: dict[str, Any]) -> dict[str, Any] | None:
    """One value of it changed so that it is another thing; None where nothing in it can be."""
    for name, value in reversed(arguments.items()):
        if isinstance(value, bool):
            return {**arguments, name: not value}
        if isinstance(value, int):
            return {**arguments, name: value + 1}
        if isinstance(value, str) and _NUMBER.search(value):
            return {**arguments, name: _NUMBER.sub(lambda m: str(int(m[0]) + 1), value, count=1)}
    return None
