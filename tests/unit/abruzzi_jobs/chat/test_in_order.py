"""Work under way side by side, taken in its order."""

from __future__ import annotations

import asyncio

import pytest

from abruzzi_jobs.chat import in_order as module
from abruzzi_jobs.chat.in_order import in_order


async def test_what_is_done_early_is_taken_in_its_order_and_no_more_is_under_way_than_allowed() -> None:
    under_way = most = 0
    let_go = [asyncio.Event() for _ in range(3)]

    async def work(number: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        if number % 3 < 2:  # the last of each three lets the others end
            await let_go[number // 3].wait()
        else:
            let_go[number // 3].set()
        under_way -= 1
        return number * number

    async with in_order(range(9), work, ahead=3, answers=lambda: 0, beat=lambda: None) as found:
        taken = [pair async for pair in found]
    assert taken == [(number, number * number) for number in range(9)]
    assert most == 3


async def test_a_slow_piece_of_work_is_told_of_only_as_long_as_answers_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_SECONDS", 0.001)
    looks = 0
    told: list[int] = []
    done = asyncio.Event()

    def answers() -> int:
        """One more at each of the first looks, then the same for ever."""
        nonlocal looks
        looks += 1
        if looks > 60:
            done.set()
        return min(looks, 11)

    async def work(item: str) -> str:
        await done.wait()
        return item

    async with in_order(["x"], work, ahead=1, answers=answers, beat=lambda: told.append(looks)) as found:
        assert [pair async for pair in found] == [("x", "x")]
    assert told
    assert max(told) <= 12, "no word without an answer"


async def test_what_is_raised_ends_the_rest() -> None:
    cancelled: list[int] = []

    async def work(number: int) -> int:
        if number == 0:
            raise ValueError("no")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise
        return number

    async def take_all() -> None:
        async with in_order(range(4), work, ahead=4, answers=lambda: 0, beat=lambda: None) as found:
            async for _ in found:
                pass

    with pytest.raises(ValueError, match="no"):
        await take_all()
    assert cancelled == [1, 2, 3]


async def test_who_stops_taking_ends_what_is_under_way() -> None:
    cancelled: list[int] = []

    async def work(number: int) -> int:
        if number:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(number)
                raise
        return number

    async def take_one() -> int:
        async with in_order(range(3), work, ahead=3, answers=lambda: 0, beat=lambda: None) as found:
            async for number, _ in found:
                return number
        return -1

    assert await take_one() == 0
    assert cancelled == [1, 2]
