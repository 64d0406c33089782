"""Reading a log while it grows."""

from __future__ import annotations

import asyncio

import pytest

from abruzzi.contracts.errors import NotFound
from abruzzi.kit.db import transaction
from abruzzi.logs import service as logs
from abruzzi.runs import query


class Replaced:
    """An object store whose reader is overtaken: before its first look at an object an append replaces that one and removes it."""

    def __init__(self, inner, world, attempt_id: str, *, appends: bool = True) -> None:
        self._inner, self._world, self._attempt_id, self._appends = inner, world, attempt_id, appends
        self._loop = asyncio.get_running_loop()
        self.looked = 0

    async def _append(self) -> None:
        await append(self._world, self._attempt_id, b"two\n", offset=4)

    def __getattr__(self, name: str):
        return getattr(self._inner, name)

    def get(self, key: str) -> bytes:
        self.looked += 1
        if self.looked == 1:
            if self._appends:
                asyncio.run_coroutine_threadsafe(self._append(), self._loop).result(240.0)
            else:
                self._inner.delete(key)
        return self._inner.get(key)


async def append(world, attempt_id: str, data: bytes, *, offset: int) -> None:
    async with world.sessions() as session, session.begin():
        attempt = await query.attempt_row(session, attempt_id)
        appended = await logs.append(session, world.objects, attempt, 0, offset, data)
    if appended.replaced_key is not None:
        world.objects.delete(appended.replaced_key)


@pytest.mark.parametrize("options", [{"tail": 10}, {"offset": 0}], ids=["tail", "from the start"])
async def test_a_reader_that_an_append_overtakes_looks_again_and_gets_the_lines(world, options) -> None:
    run_id = await world.submit()
    await world.steps(run_id)
    attempt_id = f"{run_id}-first-1"
    await append(world, attempt_id, b"one\n", offset=0)
    async with transaction(world.sessions) as session:
        attempt = await query.attempt_row(session, attempt_id)
        page = await logs.read(session, Replaced(world.objects, world, attempt_id), attempt, 0, **options)
    assert page.lines[0].text == "one"


async def test_an_object_that_is_really_gone_is_told_and_not_looked_for_for_ever(world) -> None:
    run_id = await world.submit()
    await world.steps(run_id)
    attempt_id = f"{run_id}-first-1"
    await append(world, attempt_id, b"one\n", offset=0)
    objects = Replaced(world.objects, world, attempt_id, appends=False)
    async with transaction(world.sessions) as session:
        attempt = await query.attempt_row(session, attempt_id)
        with pytest.raises(NotFound):
            await logs.read(session, objects, attempt, 0, tail=10)
    assert objects.looked == 2
