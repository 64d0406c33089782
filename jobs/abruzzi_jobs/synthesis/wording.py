"""Things that rules made, in a model's words."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from abruzzi_jobs.chat.failures import CallRejected
from abruzzi_jobs.chat.request import ChatBackend, ChatRequest, ChatResponse

Thing = TypeVar("Thing")


async def in_other_words(
    things: Sequence[Thing],
    backend: ChatBackend,
    ask: Callable[[Thing], ChatRequest],
    read: Callable[[Thing, ChatResponse], tuple[Thing, str]],
) -> tuple[list[Thing], Counter[str]]:
    """All of them, in their order, and how many stayed as they were for which reason. `read` gives (the thing in the answer's words, "") or (the thing
    as it was, why). Raises what stops every question (a budget, an endpoint)."""
    refused: Counter[str] = Counter()

    async def one(thing: Thing) -> Thing:
        try:
            response = await backend.complete(ask(thing))
        except CallRejected as rejected:
            refused[rejected.reason] += 1
            return thing
        worded, fault = read(thing, response)
        if fault:
            refused[fault] += 1
        return worded

    return list(await asyncio.gather(*(one(thing) for thing in things))), refused


def answer_text(response: ChatResponse) -> str:
    """Without the quotation marks that models put around what they were asked to write."""
    return response.text.strip().strip('"').strip()
