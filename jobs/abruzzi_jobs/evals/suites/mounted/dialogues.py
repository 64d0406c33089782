"""Mounted questions of several turns, judged as MT-bench does (Zheng et al. 2023): each answer alone from 1 to 10, or beside a baseline's in both orders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from statistics import fmean
from typing import Any, ClassVar

from abruzzi.contracts.evaluation import Item, Verdict
from abruzzi_jobs.chat.request import ChatRequest, Message
from abruzzi_jobs.evals.scorers.grader import graded, no_verdict
from abruzzi_jobs.evals.suites.mounted.kinds import DUEL, DUEL_WORDS, MountedSuite, points_of
from abruzzi_jobs.evals.suites.mounted.reading import value_of
from abruzzi_jobs.evals.suites.suite import Ask, Helpers, Transcript

_RATINGS = tuple(str(number) for number in range(1, 11))


class _Dialogue(MountedSuite):
    """The field `turns` lists what the user says; the answer is a JSON list of what the target said to each."""

    asks = ("judge",)

    def read(self, row: Mapping[str, Any]) -> tuple[str, Any, dict[str, Any]]:
        turns = [str(turn) for turn in value_of(row, self.mounted.turns)]
        if not turns:
            raise ValueError("no turns")
        _, gold, meta = super().read(row)
        return turns[0], gold, {**meta, "turns": turns}

    async def play(self, item: Item, ask: Ask, helpers: Helpers) -> Transcript:
        messages: list[Message] = []
        said: list[str] = []
        truncated = False
        for turn in item.meta["turns"]:
            messages.append({"role": "user", "content": turn})
            response = await ask(ChatRequest(messages=list(messages)))
            messages.append(response.message())
            said.append(response.text)
            truncated |= response.finish_reason == "length"
        return Transcript(messages=tuple(messages), answer=json.dumps(said, ensure_ascii=False), truncated=truncated)

    @staticmethod
    def spoken(item: Item, said: list[str], turn: int) -> str:
        """The conversation up to the answer that is judged, which is left out."""
        turns = item.meta["turns"]
        before = [text for n in range(turn) for text in (f"User: {turns[n]}", f"Assistant: {said[n]}")]
        return "\n\n".join([*before, f"User: {turns[turn]}"])


class Rated(_Dialogue):
    """Score of an item: the mean over turns of (rating - 1) / 9, so 1 is 0 and 10 is 1; the owner's figure is 1 + 9 × score. Parts: each turn."""

    task: ClassVar[str] = (
        "You rate the last answer of a conversation for helpfulness, relevance, accuracy, depth, creativity and level of detail, from 1 (worst) to 10 "
        "(best); where there is a reference, it is right. Do not let length sway you."
    )

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        said = json.loads(transcript.answer)
        parts: dict[str, float] = {}
        for turn, answer in enumerate(said):
            material = {"conversation": self.spoken(item, said, turn), "answer": answer}
            references = item.gold if isinstance(item.gold, list) else []
            if turn < len(references):
                material["reference"] = str(references[turn])
            found = await graded(helpers["judge"], self.task, material, _RATINGS)
            if found.word is None:
                return no_verdict(found)
            parts[f"turn_{turn + 1}"] = (int(found.word) - 1) / 9
        return Verdict(score=fmean(parts.values()), parts=parts)


class Duelled(_Dialogue):
    """Beside a baseline's answers (a list, one a turn), in both orders: the mean over turns of winning 1, a draw 0.5 and losing 0."""

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        said = json.loads(transcript.answer)
        parts: dict[str, float] = {}
        reasons: list[str] = []
        for turn, (answer, baseline) in enumerate(zip(said, item.gold, strict=True)):
            points: list[float] = []
            for first, second, win in ((answer, baseline, "a"), (baseline, answer, "b")):
                material = {"prompt": self.spoken(item, said, turn), "a": first, "b": str(second)}
                found = await graded(helpers["judge"], DUEL, material, DUEL_WORDS)
                if found.word is None:
                    return no_verdict(found)
                points.append(points_of(found.word, win))
                reasons.append(found.word)
            parts[f"turn_{turn + 1}"] = fmean(points)
        return Verdict(score=fmean(parts.values()), parts=parts, reason=", ".join(reasons))
