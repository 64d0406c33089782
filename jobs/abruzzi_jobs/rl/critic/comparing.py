"""Answers of groups compared: code first, then the critic in both orders, all groups' questions at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from abruzzi.contracts.critic import CriticConfig
from abruzzi.contracts.rubric import RubricSet
from abruzzi_jobs.rl.critic.asking import Critic, Question
from abruzzi_jobs.rl.critic.form import Verdict
from abruzzi_jobs.rl.critic.prescriptive import violations
from abruzzi_jobs.rl.critic.ranking import Compared, bradley_terry, cycles, pairs_of, win_rates

EMPTY = "empty"
"""No rubric, and always checked: nothing was said."""


@dataclass(frozen=True, slots=True)
class Contest:
    id: str
    question: str
    answers: tuple[str, ...]


@dataclass(slots=True)
class Tally:
    """Of pairs that a critic was asked."""

    pairs: int = 0
    turned: int = 0
    """The verdict changed with the order."""
    unread: int = 0
    """Questions without a verdict that can be read, or too long to be asked."""
    read: int = 0
    said_first: int = 0
    """Verdicts for whichever answer stood first."""

    def add(self, turned: bool, said: Sequence[Verdict]) -> None:
        self.pairs += 1
        self.turned += turned
        self.unread += sum(not verdict.is_read for verdict in said)
        self.read += sum(verdict.better is not None for verdict in said)
        self.said_first += sum(verdict.better == "A" for verdict in said)


@dataclass(frozen=True, slots=True)
class Ranked:
    scores: tuple[float, ...]
    """In [0, 1], of each answer."""
    violations: tuple[tuple[str, ...], ...]
    compared: tuple[Compared, ...]
    cycles: tuple[int, int]
    """(intransitive triples, triples that were all decided)."""


@dataclass(slots=True)
class _Plan:
    known: list[Compared] = field(default_factory=list)
    open: list[tuple[int, int]] = field(default_factory=list)


async def rank(
    critic: Critic, contests: Sequence[Contest], rubrics: RubricSet, config: CriticConfig, tally: Tally
) -> list[Ranked]:
    """Of each contest. `tally` is added to."""
    faults = [[_faults(rubrics, answer) for answer in contest.answers] for contest in contests]
    plans = [_plan(contest, found, config) for contest, found in zip(contests, faults, strict=True)]
    asked = [
        question
        for contest, plan in zip(contests, plans, strict=True)
        for a, b in plan.open
        for question in both_orders(contest.question, contest.answers[a], contest.answers[b])
    ]
    said = iter(await critic.ask(asked))
    ranked = []
    for contest, plan, found in zip(contests, plans, faults, strict=True):
        for a, b in plan.open:
            there, back = next(said), next(said)
            winner, turned = agreed(there, back)
            tally.add(turned, (there, back))
            plan.known.append(Compared(a, b, (a, b)[winner] if winner is not None else None, True, turned))
        count = len(contest.answers)
        scores = win_rates(count, plan.known) if config.aggregate == "win_rate" else bradley_terry(count, plan.known)
        ranked.append(Ranked(tuple(scores), tuple(found), tuple(plan.known), cycles(count, plan.known)))
    return ranked


def both_orders(question: str, one: str, other: str) -> tuple[Question, Question]:
    return Question(question, one, other), Question(question, other, one)


def agreed(there: Verdict, back: Verdict) -> tuple[int | None, bool]:
    """(0 for the answer that stood first at first, 1 for the other, None for a tie; whether the verdict turned with the order)."""
    first = {"A": 0, "B": 1, None: None}[there.better]
    second = {"A": 1, "B": 0, None: None}[back.better]
    return (first, False) if first == second else (None, there.is_read and back.is_read)


def _faults(rubrics: RubricSet, answer: str) -> tuple[str, ...]:
    return violations(rubrics.rubrics, answer) if answer.strip() else (EMPTY,)


def _plan(contest: Contest, faults: Sequence[tuple[str, ...]], config: CriticConfig) -> _Plan:
    plan = _Plan()
    for a, b in pairs_of(len(contest.answers), opponents=config.opponents, seed=contest.id):
        if bool(faults[a]) != bool(faults[b]):
            plan.known.append(Compared(a, b, b if faults[a] else a))
        elif faults[a] or contest.answers[a] == contest.answers[b]:
            plan.known.append(Compared(a, b, None))
        else:
            plan.open.append((a, b))
    return plan
