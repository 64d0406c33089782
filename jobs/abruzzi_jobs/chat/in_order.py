"""Many pieces of work under way at a time, taken in their order, so that the same answers make the same bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from contextlib import aclosing
from itertools import islice
from typing import Any, TypeVar

MOST_AHEAD = 2048
BEAT_SECONDS = 2.0

Item = TypeVar("Item")
Made = TypeVar("Made")


def in_order(
    items: Iterable[Item],
    work: Callable[[Item], Coroutine[Any, Any, Made]],
    *,
    ahead: int,
    answers: Callable[[], int],
    beat: Callable[[], None],
) -> aclosing[AsyncGenerator[tuple[Item, Made], None]]:
    """async with in_order(documents, rewrite, ahead=64, …) as found: async for document, rewritten in found: …

    At most `ahead` (and MOST_AHEAD) are under way. While the oldest is waited for, `beat` is called whenever `answers` has grown: a slow model is no
    hang as long as it answers. What it raises, and what a piece of work raises, ends the rest: the answers so far are in the log of calls.
    """
    return aclosing(_in_order(items, work, min(ahead, MOST_AHEAD), answers, beat))


async def _in_order(
    items: Iterable[Item],
    work: Callable[[Item], Coroutine[Any, Any, Made]],
    ahead: int,
    answers: Callable[[], int],
    beat: Callable[[], None],
) -> AsyncGenerator[tuple[Item, Made], None]:
    remaining = iter(items)
    under_way: deque[tuple[Item, asyncio.Task[Made]]] = deque()
    told = answers()
    try:
        while True:
            for item in islice(remaining, ahead - len(under_way)):
                under_way.append((item, asyncio.create_task(work(item))))
            if not under_way:
                return
            oldest, task = under_way[0]
            while not (await asyncio.wait({task}, timeout=BEAT_SECONDS))[0]:
                if answers() > told:
                    told = answers()
                    beat()
            yield oldest, task.result()
            under_way.popleft()
    finally:
        for _, task in under_way:
            task.cancel()
        await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)
