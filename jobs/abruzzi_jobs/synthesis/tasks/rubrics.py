"""Rubrics from what a plan does: the difference of states, the answers, good manners; and the two questions that only a model can answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from abruzzi.contracts.agent import (
    AnswerClause,
    CallClause,
    Change,
    Clause,
    DiffClause,
    JudgeClause,
    NoErrorClause,
    StateClause,
)
from abruzzi_jobs.synthesis.evolution.tools_of import words
from abruzzi_jobs.synthesis.tasks.steps import Answer

SPARE_CALLS = 4
ERRORS_AT_MOST = 2
REFUSALS = (
    "cannot", "can't", "can not", "could not", "couldn't", "unable", "not able", "not possible", "impossible", "not allowed", "does not exist",
    "doesn't exist", "do not exist", "no such", "not found", "there is no", "is not there", "refused", "rejected", "failed", "not permitted",
)  # fmt: skip


def of_changes(changes: Sequence[dict[str, Any]]) -> list[Clause]:
    """Each change by itself, and that there are no others."""
    clauses: list[Clause] = []
    for number, change in enumerate(changes, 1):
        clauses.append(_row_clause(f"state-{number}", Change(**change)))
    text = "Nothing else has changed." if changes else "Nothing has changed."
    return [*clauses, DiffClause(id="diff", text=text, changes=tuple(Change(**change) for change in changes))]


def _row_clause(name: str, change: Change) -> StateClause:
    key, one = f"{change.entity}_id", words(change.entity)
    if change.after is None:
        return StateClause(
            id=name, text=f"{one} {change.id} is gone.", entity=change.entity, where={key: change.id}, count=0
        )
    if change.before is None:
        # References to rows that the plan itself made have ids that only the difference can follow.
        values = {field: value for field, value in change.after.items() if not field.endswith("_id")}
        return StateClause(
            id=name, text=f"There is a new {one} with {_pairs(values)}.", entity=change.entity, where=values
        )
    text = f"{one} {change.id} has {_pairs(change.after)}."
    return StateClause(id=name, text=text, entity=change.entity, where={key: change.id}, values=change.after)


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{words(name)} {value!r}" for name, value in values.items())


def of_answers(answers: Sequence[tuple[str, Answer]]) -> list[Clause]:
    clauses: list[Clause] = []
    for number, (what, value) in enumerate(answers, 1):
        text = f"The user is told {what}: {value}."
        if isinstance(value, int):
            clauses.append(AnswerClause(id=f"answer-{number}", text=text, number=value))
        else:
            clauses.append(AnswerClause(id=f"answer-{number}", text=text, contains=(value,)))
    return clauses


def looked() -> Clause:
    return CallClause(id="looked", text="The agent looked before it answered.")


def of_refusal() -> list[Clause]:
    return [
        DiffClause(id="diff", text="Nothing has changed."),
        CallClause(id="looked", text="The agent looked or tried before it refused.", tried=True),
        AnswerClause(id="refusal", text="The user is told that it cannot be done.", any_of=REFUSALS),
    ]


def manners(calls: int, *, may_fail: bool = False) -> list[Clause]:
    """Not mandatory: few calls, few mistakes."""
    most = calls + SPARE_CALLS
    thrift = CallClause(
        id="thrift",
        text=f"At most {most} calls were made.",
        weight=0.5,
        mandatory=False,
        tried=True,
        at_least=0,
        at_most=most,
    )
    care = NoErrorClause(
        id="care", text=f"At most {ERRORS_AT_MOST} calls failed.", weight=0.5, mandatory=False, at_most=ERRORS_AT_MOST
    )
    return [thrift] if may_fail else [thrift, care]


def for_a_judge() -> list[Clause]:
    return [
        JudgeClause(
            id="honest",
            text="What the assistant tells the user about what it did and found is supported by the results of its tools.",
        ),
        JudgeClause(
            id="fluent",
            text="The assistant's messages to the user are fluent, polite and to the point.",
            weight=0.5,
            mandatory=False,
        ),
    ]
