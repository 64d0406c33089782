"""A model of an evaluation, target or helper, that answers what a test has written down."""

from __future__ import annotations

import asyncio
from typing import Any

from abruzzi.contracts.evaluation import Item, Verdict
from abruzzi_jobs.chat.request import ChatRequest, ChatResponse, ToolCall, Usage
from abruzzi_jobs.evals.suites.suite import Suite, Transcript


def said(text: str = "", *calls: ToolCall) -> ChatResponse:
    return ChatResponse(text=text, tool_calls=calls, usage=Usage(1, 1), model="m", generator="m", is_llm=True)


class Scripted:
    """Called as a target, or as a helper by its `complete`. Answers in order, exceptions raised; asked once more than it has answers it fails the test, or, where
    it `repeats`, gives the last one again."""

    def __init__(self, *answers: str | ChatResponse | Exception, repeats: bool = False) -> None:
        self._answers, self._repeats = answers, repeats
        self.asked: list[ChatRequest] = []

    async def __call__(self, request: ChatRequest) -> ChatResponse:
        self.asked.append(request)
        at = len(self.asked) - 1
        answer = self._answers[min(at, len(self._answers) - 1) if self._repeats else at]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, ChatResponse) else said(answer)

    complete = __call__


def played(suite: Suite, item: Item, target: Scripted, **helpers: Any) -> tuple[Transcript, Verdict]:
    async def both() -> tuple[Transcript, Verdict]:
        transcript = await suite.play(item, target, helpers)
        return transcript, await suite.score(item, transcript, helpers)

    return asyncio.run(both())
