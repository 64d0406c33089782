"""Answers from a text alone: a summary, an answer to a question, or saying that the text does not tell. Every sentence has to be supported by the text
(paper 3.2.1): by the rules with which rewrites are checked, and by a judge where there is one."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from pydantic import Field, StrictInt

from abruzzi.contracts.rephrase import FidelityConfig
from abruzzi.contracts.rollout import Outcome, Status, Task, Trajectory
from abruzzi.contracts.training import Strict
from abruzzi_jobs.chat.request import ChatBackend
from abruzzi_jobs.rephrase.fidelity.fault import Fault, FaultKind
from abruzzi_jobs.rephrase.fidelity.rules import rules
from abruzzi_jobs.rephrase.fidelity.words import parse
from abruzzi_jobs.rl.environments.answers import as_assistant, last_said, scored
from abruzzi_jobs.rl.environments.environment import Environment, Message, Observation, Services, StepResult
from abruzzi_jobs.rl.environments.gym import Gym
from abruzzi_jobs.rl.environments.judging import holds
from abruzzi_jobs.rl.environments.single_turn import SingleTurn

_CONFIG = FidelityConfig()
_SENTENCES_JUDGED = 8
_COVERED = 2
"""Facts of the text that a summary has to tell at least."""
_PLACES = (
    "Aldmoor",
    "Brenholm",
    "Calverton",
    "Dunwick",
    "Eskdale",
    "Farleigh",
    "Gorsefield",
    "Hartwell",
    "Ingleby",
    "Kelso",
)
_PEOPLE = (
    "Anna Weiss",
    "Bruno Keller",
    "Clara Moreau",
    "David Okafor",
    "Elena Rossi",
    "Farid Haddad",
    "Greta Lind",
    "Hugo Silva",
)
_THINGS = ("bridge", "museum", "library", "lighthouse", "observatory", "theatre", "station", "mill")
_MATERIALS = ("granite", "brick", "oak", "limestone", "iron", "slate")
_COLOURS = ("green", "white", "red", "blue", "yellow")
_FACTS: dict[str, tuple[str, str]] = {
    "opened": ("The {thing} of {place} was opened in {year}.", "In which year was it opened?"),
    "architect": ("It was designed by {person}.", "Who designed it?"),
    "height": ("It is {height} metres high.", "How many metres high is it?"),
    "material": ("Its walls are made of {material}.", "What are its walls made of?"),
    "visitors": ("Last summer {visitors} visitors came.", "How many visitors came last summer?"),
    "cost": ("The roof was repaired for {cost} crowns.", "For how many crowns was the roof repaired?"),
    "doors": ("The doors are painted {colour}.", "What colour are the doors?"),
    "keeper": ("The keys are kept by {keeper}.", "Who keeps the keys?"),
}
"""Sentence and question of each; the value is the field in braces after the thing and the place."""
_VALUES = {
    "opened": "year", "architect": "person", "height": "height", "material": "material", "visitors": "visitors", "cost": "cost",
    "doors": "colour", "keeper": "keeper",
}  # fmt: skip
_ASKED = {
    "summary": "Summarise the text in two or three sentences. Say nothing that it does not say.",
    "question": "Answer from the text alone, in one sentence.",
    "absent": "Answer from the text alone, in one sentence. Where it does not tell, say that the text does not say.",
}
_DOES_NOT_SAY = re.compile(
    r"\b(?:text|it|passage|source)\b[^.]{0,40}\b(?:does(?: not|n['’]t)|doesn't|never) (?:say|tell|mention|state|give)|not (?:mentioned|stated|given|said)|"
    r"\b(?:no|without) (?:information|mention)\b",
    re.IGNORECASE,
)


class FaithfulnessOptions(Strict):
    facts: StrictInt = Field(default=5, ge=3, le=7)
    """Of a text."""


class Faithfulness(Gym):
    name = "faithfulness"
    summary = "Summaries and answers from a text alone; the share of supported sentences, and whether what was asked for is told."
    families = ("summary", "question", "absent")
    roles = ("judge",)
    Options = FaithfulnessOptions

    def draw(self, draw: random.Random, family: str) -> dict[str, Any]:
        keeper, person = draw.sample(_PEOPLE, 2)
        values: dict[str, Any] = {
            "thing": draw.choice(_THINGS), "place": draw.choice(_PLACES), "person": person, "keeper": keeper, "material": draw.choice(_MATERIALS),
            "colour": draw.choice(_COLOURS), "year": draw.randint(1701, 1989), "height": draw.randint(12, 97),
            "visitors": draw.randint(1100, 9900), "cost": 100 * draw.randint(101, 999),
        }  # fmt: skip
        told = ["opened", *draw.sample([fact for fact in _FACTS if fact != "opened"], self.options.facts - 1)]
        sentences = [_FACTS[fact][0].format(**values) for fact in told]
        absent = [fact for fact in _FACTS if fact not in told]
        fact = draw.choice(absent if family == "absent" else told)
        question = "" if family == "summary" else f" {_FACTS[fact][1]}"
        answer = {"summary": " ".join(sentences[:3]), "absent": "The text does not say."}.get(
            family, sentences[told.index(fact)] if fact in told else ""
        )
        facts = {name: str(values[_VALUES[name]]) for name in told}
        text = " ".join(sentences)
        return {
            "prompt": f"{text}\n\n{_ASKED[family]}{question}",
            "text": text,
            "facts": facts,
            "wanted": fact,
            "answer": answer,
        }

    def session(self, services: Services = Services()) -> Environment:
        return _Judged(services.backends.get("judge"))

    def solution(self, task: Task) -> tuple[Message, ...]:
        return (as_assistant(task.data["answer"]),)

    def score(self, trajectory: Trajectory, messages: tuple[Message, ...], state: dict[str, Any]) -> Outcome:
        """The share of sentences that are supported, 0 unless what was asked for is told."""
        task, text = trajectory.task, last_said(messages)
        if not parse(text).sentences:
            return scored(self.reference, 0.0, detail="nothing is said", supported=0.0, told=0.0)
        if task.family == "absent":
            is_told = _DOES_NOT_SAY.search(text) is not None
            return scored(self.reference, float(is_told), supported=float(is_told), told=float(is_told))
        verdicts, details = supported(task.data["text"], text)
        if (judged := state.get("judge")) is not None:
            if None in judged:
                return Outcome(status=Status.REWARD_ERROR, version=self.reference, detail="the judge gave no verdict")
            verdicts = [a and b for a, b in zip(verdicts, [*judged, *[True] * len(verdicts)], strict=False)]
        share = sum(verdicts) / len(verdicts)
        found = [name for name, value in task.data["facts"].items() if _tells(text, value)]
        is_told = len(found) >= _COVERED if task.family == "summary" else task.data["wanted"] in found
        return scored(
            self.reference, share * is_told, detail="; ".join(details)[:400], supported=share, told=float(is_told)
        )


class _Judged(SingleTurn):
    def __init__(self, backend: ChatBackend | None) -> None:
        self._backend = backend
        self._source = self._said = ""
        self._family = ""

    async def reset(self, task: Task, seed: int) -> Observation:
        self._source, self._family = task.data["text"], task.family
        return await super().reset(task, seed)

    async def step(self, action: Message) -> StepResult:
        self._said = str(action.get("content") or "")
        return await super().step(action)

    async def state(self) -> dict[str, Any]:
        """A verdict a sentence."""
        if self._backend is None or self._family == "absent":
            return {}
        found = []
        for sentence in parse(self._said).sentences[:_SENTENCES_JUDGED]:
            said = self._said[sentence.start : sentence.end]
            found.append(
                await holds(self._backend, "The source supports what the text says.", said, source=self._source)
            )
        return {"judge": found}


def supported(source: str, text: str) -> tuple[list[bool], list[str]]:
    """(of each sentence of the text whether the source says it, what is wrong). What a sentence leaves out is no fault of it."""
    sentences = [sentence.span for sentence in parse(text).sentences]
    faults = [
        fault for fault in rules(source, text, context=source, config=_CONFIG) if _is_of_a_sentence(fault, sentences)
    ]
    verdicts = [not any(_meet(fault.text_span, span) for fault in faults) for span in sentences]
    return verdicts, [f"{fault.kind.value}: {fault.detail}" for fault in faults]


def _is_of_a_sentence(fault: Fault, sentences: Sequence[tuple[int, int]]) -> bool:
    """Numbers and names that are missing are laid to the whole sentence that should have had them; new ones to themselves."""
    if fault.text_span is None or fault.kind is FaultKind.OMISSION:
        return False
    return fault.kind not in (FaultKind.NUMBER, FaultKind.ENTITY) or fault.text_span not in sentences


def _meet(span: tuple[int, int] | None, other: tuple[int, int]) -> bool:
    return span is not None and span[0] < other[1] and other[0] < span[1]


def _tells(text: str, value: str) -> bool:
    plain = text.replace(",", "")
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", plain, re.IGNORECASE) is not None
