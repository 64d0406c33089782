"""Answers to one prompt: by every candidate, looked at by rules, known answers and the judge; the fate of each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from abruzzi.contracts.endpoint import ChatRole
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.instruct import InstructConfig, candidate_role
from abruzzi_jobs.chat.failures import CallRejected, ChatFailure, EndpointFailed, EndpointRefused, EndpointUnavailable
from abruzzi_jobs.chat.request import ChatBackend, ChatRequest
from abruzzi_jobs.data.processing.shard import KEPT
from abruzzi_jobs.instruct.judge import Judgement, judge
from abruzzi_jobs.instruct.prompt import Prompt
from abruzzi_jobs.instruct.rules import faults_of, is_right

REVIEW = "review"
_DOWN = (EndpointUnavailable, EndpointRefused, EndpointFailed)
GIVEN = "given"
"""Candidate of the answer that came with a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    candidate: str
    """The endpoint's name, or `given`."""
    sample: int
    text: str
    generator: str
    is_llm: bool
    finish_reason: str = "stop"
    call_ids: tuple[str, ...] = ()
    right: bool | None = None
    """By what is known about the prompt."""
    score: float | None = None
    """The judge's."""
    judge: str = ""
    """Who judged."""
    fate: str = KEPT
    reasons: tuple[str, ...] = field(default=())


class Answering:
    """Asks all candidates, as many prompts at a time as the caller likes."""

    def __init__(self, config: InstructConfig, roles: Mapping[str, ChatBackend]) -> None:
        self._config = config
        self._candidates = {c.endpoint: roles[candidate_role(c.endpoint)] for c in config.candidates}
        self._judge: ChatBackend | None = None
        if ChatRole.JUDGE in roles:
            self._judge = roles[ChatRole.JUDGE]
        self.down: dict[str, str] = {}
        """Endpoints that could not be reached, with the first error, where the recipe says to go on."""

    async def answers(self, prompt: Prompt) -> list[Answer]:
        """In the order of the candidates. Raises what the endpoints raise, AbruzziError `no_sandbox`."""
        asked = await asyncio.gather(
            *(self._ask(prompt, name, number) for name in self._candidates for number in range(self._config.samples))
        )
        found = [answer for answer in asked if answer is not None]
        if prompt.given:
            generator = prompt.given_generator
            given = Answer(
                candidate=GIVEN, sample=0, text=prompt.given, generator=generator, is_llm=prompt.given_is_llm
            )
            found.insert(0, given)
        looked_at = await asyncio.gather(*(self._look(prompt, answer) for answer in found))
        return _with_the_best(list(looked_at), self._config.keep)

    async def _ask(self, prompt: Prompt, name: str, number: int) -> Answer | None:
        if name in self.down:
            return None
        try:
            response = await self._candidates[name].complete(ChatRequest(messages=prompt.messages(), sample=number))
        except CallRejected as rejected:
            return Answer(
                candidate=name, sample=number, text="", generator="", is_llm=False, fate="no_answer",
                reasons=(f"{rejected.reason}: {rejected.message}",),
            )  # fmt: skip
        except _DOWN as error:
            self._go_on_without(name, error)
            return None
        return Answer(
            candidate=name, sample=number, text=response.text.strip(), generator=response.generator, is_llm=response.is_llm,
            finish_reason=response.finish_reason, call_ids=(response.call_id,),
        )  # fmt: skip

    def _go_on_without(self, name: str, error: ChatFailure) -> None:
        """Raises where the recipe wants all candidates, or where this was the last one."""
        if self._config.when_down == "fail":
            raise error
        self.down.setdefault(name, error.message)
        if len(self.down) == len(self._candidates):
            raise AbruzziError(
                error.code,
                f"No candidate is left: {' '.join(self.down.values())}",
                status=error.status,
                hint="Are the endpoints running, and can this machine reach them? Answers so far are kept.",
            ) from error

    async def _look(self, prompt: Prompt, answer: Answer) -> Answer:
        if answer.fate != KEPT:
            return answer
        faults = faults_of(answer.text, answer.finish_reason, self._config.rules)
        if faults:
            return replace(answer, fate=faults[0], reasons=tuple(faults))
        if prompt.check == "program":
            right, why = await asyncio.to_thread(is_right, prompt, answer.text, run_programs=self._config.run_programs)
        else:  # math-verify ends what takes too long by a signal, which only this thread gets
            right, why = is_right(prompt, answer.text)
        answer = replace(answer, right=right)
        if self._judge is None:
            return _decided(answer, why, None, self._config)
        judgement = await judge(self._judge, prompt, answer.text, control_passes_from=self._config.judge.fail_below)
        answer = replace(
            answer,
            score=judgement.score,
            judge=judgement.generator,
            call_ids=(*answer.call_ids, *judgement.call_ids),
        )
        return _decided(answer, why, judgement, self._config)


def _decided(answer: Answer, why: str, judgement: Judgement | None, config: InstructConfig) -> Answer:
    """Right answers that the judge passes are kept, wrong ones that it fails are not; where the two disagree, or the judge is of no clear mind about
    an answer that nobody can check, people decide. Without a judge what is known decides, and what nobody can check is kept."""
    wrong = (f"wrong_answer: {why}",) if answer.right is False else ()
    if judgement is None:
        return replace(answer, fate="wrong_answer" if wrong else KEPT, reasons=wrong)
    view = _view(judgement, config)
    told = tuple(f"judge: {reason}" for reason in judgement.reasons)
    if answer.right is False:
        disagree = view == "pass"
        return replace(answer, fate=REVIEW if disagree else "wrong_answer", reasons=(*wrong, *told))
    if view == "pass":
        return replace(answer, fate=KEPT, reasons=told)
    if answer.right or view == "unsure":
        told = told or (f"judge: {judgement.score}",)
        return replace(answer, fate=REVIEW, reasons=told)
    return replace(answer, fate="judge", reasons=told or (f"judge: {judgement.score}",))


def _view(judgement: Judgement, config: InstructConfig) -> str:
    if judgement.score is None:
        return "unsure"
    if judgement.score >= config.judge.pass_from:
        return "pass"
    return "fail" if judgement.score < config.judge.fail_below else "unsure"


def _with_the_best(answers: list[Answer], keep: int) -> list[Answer]:
    """Of the answers that passed the best `keep` stay: right ones first, then by the judge's score, then the shorter."""
    passed = [i for i, answer in enumerate(answers) if answer.fate == KEPT]
    passed.sort(key=lambda i: (answers[i].right is not True, -(answers[i].score or 0.0), len(answers[i].text), i))
    return [
        replace(answer, fate="not_best", reasons=(*answer.reasons, "other answers to this prompt are better"))
        if i in passed[keep:]
        else answer
        for i, answer in enumerate(answers)
    ]
