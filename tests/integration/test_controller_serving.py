"""What the controller's process does beside its loop, over a real database: it hears rings and does side work."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url

from abruzzi.events import service as events
from abruzzi.events.models import OutboxRow
from abruzzi.kit.db import connect_arguments, transaction
from abruzzi.kit.ground import Budget, Ground, Outcome
from abruzzi.kit.settings import Settings
from abruzzi.store import DirectoryStore
from abruzzi.workers import dispatcher, steps
from abruzzi_operators.controller import main

DEADLINE_SECONDS = 240.0
PASSWORD = "two words, 100 % 'quoted' @:/?&=+\\"


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def rung(doorbell: asyncio.Event) -> bool:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(doorbell.wait(), DEADLINE_SECONDS)
    was_rung = doorbell.is_set()
    doorbell.clear()
    return was_rung


async def test_a_ring_is_heard_whatever_characters_the_password_has_and_also_after_the_connection_was_lost(
    database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "_RECONNECT_SECONDS", 0.01)
    doorbell = asyncio.Event()
    with database.connect("superuser") as superuser:
        superuser.execute(sql.SQL("CREATE ROLE listener LOGIN PASSWORD {}").format(sql.Literal(PASSWORD)))
        try:
            url = make_url(database.url("controller")).set(username="listener", password=PASSWORD)
            address = url.render_as_string(hide_password=False).replace(" ", "%20")
            async with beside(main._ring(address, doorbell)):
                assert await rung(doorbell)  # at the connection: what was missed before is looked for
                superuser.execute("SELECT pg_notify(%s, 'a run')", [events.CHANNEL_RUNS])
                assert await rung(doorbell)
                superuser.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'listener'")
                assert await rung(doorbell)
                superuser.execute("SELECT pg_notify(%s, 'a run')", [events.CHANNEL_RUNS])
                assert await rung(doorbell)
        finally:
            superuser.execute("DROP ROLE listener")


def test_an_address_is_taken_apart_as_it_was_written() -> None:
    url = f"postgresql+psycopg://me:{quote(PASSWORD, safe='')}@/db?host={quote('/tmp/a b', safe='')}&port=6000"
    assert connect_arguments(url) == {
        "user": "me", "password": PASSWORD, "dbname": "db", "host": "/tmp/a b", "port": "6000",
    }  # fmt: skip
    assert connect_arguments("postgresql://h:5/db?sslmode=require") == {
        "host": "h", "port": 5, "dbname": "db", "sslmode": "require",
    }  # fmt: skip


async def test_side_work_is_done_in_process_also_after_the_database_was_away(
    sessions, store_root, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatcher, "LOOK_SECONDS", 0.01)
    handle, tries, done = steps.handle_messages, iter(range(1000)), asyncio.Event()

    async def away_at_first(ground: Ground, budget: Budget) -> Outcome:
        if next(tries) == 0:
            raise psycopg.OperationalError("away")
        outcome = await handle(ground, budget)
        if outcome.facts["failed"]:
            done.set()
        return outcome

    monkeypatch.setattr(steps, "handle_messages", away_at_first)
    async with transaction(sessions) as session:
        events.enqueue(session, "default", "run.ended", {"run_id": "nosuchrun0"})
    async with beside(dispatcher.dispatch(Ground(sessions, DirectoryStore(store_root), Settings()))):
        await asyncio.wait_for(done.wait(), DEADLINE_SECONDS)
    async with transaction(sessions) as session:
        row = await session.get_one(OutboxRow, 1)
    assert "side work waits" in caplog.messages
    assert (row.sent_at, row.tries) == (None, 1)
    assert "There is no run 'nosuchrun0' here" in (row.last_error or "")
