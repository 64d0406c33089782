"""The event log and the outbox under interleaved transactions: nothing is skipped, nothing is sent by two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import psycopg
import pytest
from sqlalchemy import event

from abruzzi.events import service as events
from abruzzi.kit.db import bell_of, see_projects, transaction


async def new_events(sessions, after: int, *, run_id: str | None = None) -> list[tuple[int, str]]:
    async with transaction(sessions) as session:
        return [(int(e.id), e.kind) for e in await events.read(session, after=after, run_id=run_id)]


@asynccontextmanager
async def listening(database) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(database.url("controller"), autocommit=True) as listener:
        await listener.execute(f"LISTEN {events.CHANNEL_RUNS}")
        yield listener


async def test_a_reader_does_not_pass_a_writer_that_commits_late(sessions):
    async with sessions() as first, sessions() as second:
        events.append(first, "default", None, "first", {})
        await first.flush()
        events.append(second, "default", None, "second", {})
        await second.commit()
        assert await new_events(sessions, 0) == [], "the reader went past a transaction that is still open"
        await first.commit()
    seen = await new_events(sessions, 0)
    assert [kind for _, kind in seen] == ["first", "second"]


async def test_numbers_in_another_order_than_transactions_do_not_skip_either(sessions):
    """`old` begins first but writes its event last; `young` begins later, writes first, commits last. With numbers from a sequence the
    reader would see old's 2, remember it, and never see young's 1."""
    async with sessions() as old, sessions() as young:
        events.append(old, "default", None, "old begins", {})
        await old.flush()
        events.append(young, "default", None, "young", {})
        await young.flush()
        events.append(old, "default", None, "old ends", {})
        await old.commit()
        seen = await new_events(sessions, 0)
        assert [kind for _, kind in seen] == ["old begins", "old ends"]
        await young.commit()
    assert [kind for _, kind in await new_events(sessions, seen[-1][0])] == ["young"]


async def test_a_reader_beside_many_writers_sees_every_event_once_and_in_order(sessions):
    writers, each = 8, 15
    stop = asyncio.Event()
    seen: list[tuple[int, str]] = []

    async def write(name: int) -> None:
        for n in range(each):
            async with sessions() as session:
                events.append(session, "default", None, f"{name}/{n}/a", {})
                await session.flush()
                await asyncio.sleep(0.001 * ((name * 7 + n * 3) % 5))  # so that commits interleave
                events.append(session, "default", None, f"{name}/{n}/b", {})
                await session.commit()

    async def read() -> None:
        while not stop.is_set():
            seen.extend(await new_events(sessions, seen[-1][0] if seen else 0))
        seen.extend(await new_events(sessions, seen[-1][0] if seen else 0))

    reader = asyncio.create_task(read())
    await asyncio.gather(*(write(name) for name in range(writers)))
    stop.set()
    await reader
    positions = [position for position, _ in seen]
    assert positions == sorted(set(positions))
    assert {kind for _, kind in seen} == {
        f"{w}/{n}/{half}" for w in range(writers) for n in range(each) for half in "ab"
    }
    for writer in range(writers):
        told = [kind for _, kind in seen if kind.startswith(f"{writer}/")]
        assert told == [f"{writer}/{n}/{half}" for n in range(each) for half in "ab"]


async def test_positions_survive_a_rolled_back_savepoint(sessions):
    async with transaction(sessions) as session:
        events.append(session, "default", None, "one", {})
        await session.flush()
        nested = await session.begin_nested()
        events.append(session, "default", None, "undone", {})
        await session.flush()
        await nested.rollback()
        events.append(session, "default", None, "two", {})
    assert [kind for _, kind in await new_events(sessions, 0)] == ["one", "two"]


async def test_an_event_is_read_by_its_run_and_by_its_project_only(sessions, app_sessions):
    async with transaction(sessions) as session:
        await session.connection()
        events.append(session, "default", "r1", "of r1", {})
        events.append(session, "other", "r2", "of r2", {})
    assert [kind for _, kind in await new_events(sessions, 0, run_id="r2")] == ["of r2"]
    async with transaction(app_sessions, ["default"]) as session:
        assert [e.kind for e in await events.read(session)] == ["of r1"]
    async with app_sessions() as session, session.begin():
        await see_projects(session, ["other"])
        assert [e.kind for e in await events.read(session)] == ["of r2"]


async def test_the_last_position_is_where_a_new_reader_begins(sessions):
    async with transaction(sessions) as session:
        assert await events.last_position(session) == 0
        events.append(session, "default", None, "one", {})
    async with transaction(sessions) as session:
        position = await events.last_position(session)
    assert await new_events(sessions, position) == []
    assert [kind for _, kind in await new_events(sessions, position - 1)] == ["one"]


async def test_an_event_of_a_rolled_back_transaction_never_was(sessions):
    async with sessions() as session:
        events.append(session, "default", None, "ghost", {})
        await session.flush()
        await session.rollback()
    assert await new_events(sessions, 0) == []


async def test_a_ring_is_heard_after_the_commit_and_not_before(database, sessions):
    async with listening(database) as listener:
        async with transaction(sessions) as session:
            events.ring(session, events.CHANNEL_RUNS, "a000000000")
            assert [n async for n in listener.notifies(timeout=0.2)] == []
        assert [n.payload async for n in listener.notifies(timeout=240, stop_after=1)] == ["a000000000"]


async def test_nobody_is_rung_for_what_was_rolled_back_and_once_for_what_was_said_twice(database, sessions):
    async with listening(database) as listener:
        with suppress(ZeroDivisionError):
            async with transaction(sessions) as session:
                events.ring(session, events.CHANNEL_RUNS, "a000000000")
                raise ZeroDivisionError
        async with transaction(sessions) as session:
            for run_id in ("b000000000", "b000000000", "c000000000"):
                events.ring(session, events.CHANNEL_RUNS, run_id)
        heard = [n.payload async for n in listener.notifies(timeout=240, stop_after=2)]
        assert heard == ["b000000000", "c000000000"]


@contextmanager
def notify_statements(sessions, first_fault: BaseException | None = None) -> Iterator[list[int]]:
    """How many rings each NOTIFY carries. `first_fault`: what the first of them ends with."""
    sent: list[int] = []

    def note(_connection, _cursor, statement, parameters, *_):
        if "pg_notify" in statement:
            sent.append(len(parameters["payloads"]))
            if first_fault is not None and len(sent) == 1:
                raise first_fault

    engine = sessions.kw["bind"].sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def commit_at_once(sessions, names: list[str]) -> list[BaseException | None]:
    """All are committed before the first NOTIFY."""
    async with transaction(sessions) as session:
        bell = bell_of(session)

    async def commit(name: str) -> None:
        async with transaction(sessions) as session:
            events.append(session, "default", name, "work", {})
            events.ring(session, events.CHANNEL_RUNS, name)

    async with bell.turn:
        committing = [asyncio.create_task(commit(name)) for name in names]
        async with asyncio.timeout(240):
            while len(bell.waiting) < len(names):
                await asyncio.sleep(0)
    return await asyncio.gather(*committing, return_exceptions=True)


async def test_transactions_that_commit_together_ring_in_one_statement(sessions, database):
    names = [f"run{n}" for n in range(6)]
    async with listening(database) as listener:
        with notify_statements(sessions) as sent:
            assert await commit_at_once(sessions, names) == [None] * 6
        assert sorted([n.payload async for n in listener.notifies(timeout=240, stop_after=6)]) == names
    assert sent == [6]


@pytest.mark.parametrize(
    ("fault", "ends"),
    [
        (asyncio.CancelledError(), ["CancelledError", "NoneType", "NoneType"]),
        (psycopg.OperationalError("the connection is gone"), ["NoneType", "NoneType", "NoneType"]),
    ],
)
async def test_one_who_fails_at_ringing_leaves_the_others_rings_to_the_next(sessions, database, fault, ends):
    async with listening(database) as listener:
        with notify_statements(sessions, first_fault=fault) as sent:
            found = await commit_at_once(sessions, ["a", "b", "c"])
        heard = {n.payload async for n in listener.notifies(timeout=240, stop_after=2)}
    assert sent == [3, 2]
    assert len(heard) == 2
    assert heard < {"a", "b", "c"}
    assert sorted(type(end).__name__ for end in found) == ends
