"""Who compares: the policy itself through its engine, or a role on an endpoint."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from abruzzi.contracts.critic import CriticForm
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rollout import Segment
from abruzzi.contracts.rubric import RubricSet
from abruzzi_jobs.chat.failures import CallRejected
from abruzzi_jobs.chat.request import ChatBackend, ChatRequest
from abruzzi_jobs.rl.critic.form import SIDES, UNREAD, Verdict, messages, read_table
from abruzzi_jobs.rl.engine.protocol import Request
from abruzzi_jobs.sft.conversation import Conversation
from abruzzi_jobs.sft.template import ChatTemplate

_TRIES = 2
"""Of a role whose answer holds no verdict."""
_ANSWER_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Question:
    """Which of two answers is better."""

    text: str
    first: str
    second: str


class Critic(Protocol):
    async def ask(self, questions: Sequence[Question]) -> list[Verdict]:
        """Of each; the same answer to the same question."""
        ...


class CriticEngine(Protocol):
    async def generate(self, request: Request) -> Segment: ...

    async def resume(self) -> Any: ...

    async def pause(self, mode: Literal["keep", "abort"]) -> Any: ...


class Only:
    """Constraint: this token and no other."""

    def __init__(self, token: int) -> None:
        self._token = token

    def mask(self, logits_V: Tensor) -> None:
        kept = logits_V[self._token].clone()
        logits_V.fill_(-math.inf)
        logits_V[self._token] = kept

    def accept(self, token: int) -> None:
        return None


class PolicyCritic:
    """One token a question, A or B, the likelier: exact and cheap, with its probability against the other letter as confidence."""

    def __init__(
        self, engine: CriticEngine, template: ChatTemplate, rubrics: RubricSet, form: CriticForm, *, positions: int
    ) -> None:
        """`engine` is paused when nobody asks, as rollouts leave it. Raises AbruzziError bad_data for a tokenizer in which a letter is several tokens."""
        self._engine, self._template, self._rubrics, self._form = engine, template, rubrics, form
        self._positions = positions
        self._sides = side_tokens(template)
        self._numbers = itertools.count()

    async def ask(self, questions: Sequence[Question]) -> list[Verdict]:
        if not questions:
            return []
        unique = list(dict.fromkeys(questions))
        await self._engine.resume()
        try:
            said = await asyncio.gather(*(self._one(question) for question in unique))
        finally:
            await self._engine.pause("abort")
        by_question = dict(zip(unique, said, strict=True))
        return [by_question[question] for question in questions]

    async def _one(self, question: Question) -> Verdict:
        asked = messages(question.text, question.first, question.second, self._rubrics.rubrics, self._form)
        tokens = tuple(self._template.prompt(Conversation(messages=asked)))
        if len(tokens) >= self._positions:
            return UNREAD
        group = hashlib.sha256(question.text.encode()).hexdigest()[:16]
        first, second = await asyncio.gather(*(self._logprob(tokens, letter, group) for letter in self._sides))
        return Verdict(SIDES[0] if first >= second else SIDES[1], 1 / (1 + math.exp(-abs(first - second))))

    async def _logprob(self, tokens: tuple[int, ...], letter: int, group: str) -> float:
        """Of the letter, by the policy's own distribution: a segment's log-probabilities know no constraint (ADR 12)."""
        segment = await self._engine.generate(
            Request(
                id=f"critic/{next(self._numbers)}",
                tokens=tokens,
                max_tokens=1,
                temperature=0.0,
                seed=0,
                stop_tokens=frozenset(),
                group=group,
                constraint=Only(letter),
            )
        )
        return segment.logprobs[0]


class RoleCritic:
    """A verdict a rubric, as JSON, from whoever plays the role."""

    def __init__(self, backend: ChatBackend, rubrics: RubricSet, *, go_on: Callable[[], None] = lambda: None) -> None:
        """`go_on`: called before each question; what it raises ends them all."""
        self._backend, self._rubrics, self._go_on = backend, rubrics, go_on

    async def ask(self, questions: Sequence[Question]) -> list[Verdict]:
        """Raises what the backend raises for all questions alike: a budget that is used up, Preempted; those under way are broken off."""
        unique = list(dict.fromkeys(questions))
        asking = [asyncio.ensure_future(self._one(question)) for question in unique]
        try:
            said = await asyncio.gather(*asking)
        finally:
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        by_question = dict(zip(unique, said, strict=True))
        return [by_question[question] for question in questions]

    async def _one(self, question: Question) -> Verdict:
        rubrics = self._rubrics.rubrics
        asked = messages(question.text, question.first, question.second, rubrics, "full", table=True)
        for number in range(_TRIES):
            self._go_on()
            request = ChatRequest(messages=asked, temperature=0.0, max_tokens=_ANSWER_TOKENS, sample=number)
            try:
                response = await self._backend.complete(request)
            except CallRejected:
                return UNREAD
            verdict = read_table(response.text, rubrics)
            if verdict.is_read:
                return verdict
        return UNREAD


def side_tokens(template: ChatTemplate) -> tuple[int, int]:
    """Of A and B. Raises AbruzziError bad_data where one is more than a token."""
    found = [template.tokenizer.encode(side, add_special_tokens=False).ids for side in SIDES]
    if any(len(ids) != 1 for ids in found):
        raise AbruzziError(
            "bad_data",
            "A or B is no single token of this tokenizer, so a policy cannot give verdicts by one.",
            hint="Train a tokenizer whose alphabet has both letters.",
        )
    return found[0][0], found[1][0]
