"""A suite of sums and targets that fail in every way, for tests of the runner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from abruzzi.contracts.evaluation import Item, ItemStatus, SuiteSettings, Verdict
from abruzzi_jobs.chat.request import ChatRequest, ChatResponse, Usage
from abruzzi_jobs.evals.suites.suite import Helpers, QuestionSuite, Transcript


class Sums(QuestionSuite):
    name = "sums"
    summary = "Sums of two numbers."
    licence = "ours"
    source = "this file"
    number = 10
    defaults = SuiteSettings(max_tokens=64)

    def items(self) -> Iterator[Item]:
        for n in range(self.number):
            yield Item(id=f"sum-{n}", prompt=f"{n} + {n} =", gold=str(2 * n), subtask="even" if n % 2 == 0 else "odd")

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        right = float(transcript.answer.strip() == item.gold)
        return Verdict(score=right, parts={"strict": right, "loose": float(item.gold in transcript.answer)})


class JudgedSums(Sums):
    asks = ("judge",)

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        for sample in range(3):
            question = [{"role": "user", "content": f"Is {transcript.answer} right?"}]
            said = (await helpers["judge"].complete(ChatRequest(messages=question, sample=sample))).text
            if said in ("yes", "no"):
                return Verdict(score=float(said == "yes"))
        return Verdict(score=None, status=ItemStatus.GRADER_ERROR, reason=f"the judge said {said[:40]!r}")


@dataclass
class Target:
    """Knows its sums. `say(prompt, times asked before)` says otherwise: a text, a response, or an error to raise."""

    say: Callable[[str, int], Any] = lambda prompt, times: None
    asked: Counter[str] = field(default_factory=Counter)

    async def complete(self, request: ChatRequest) -> ChatResponse:
        prompt = request.messages[-1]["content"]
        times = self.asked[prompt]
        self.asked[prompt] += 1
        said = self.say(prompt, times)
        if isinstance(said, BaseException):
            raise said
        if isinstance(said, ChatResponse):
            return said
        return response(str(2 * int(prompt.split(" ")[0])) if said is None else said)


def response(text: str, finish_reason: str = "stop") -> ChatResponse:
    return ChatResponse(
        text=text, finish_reason=finish_reason, usage=Usage(7, 3), model="m", generator="m", is_llm=True, call_id="00"
    )
