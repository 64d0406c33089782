"""The pool of connections: one that ended while it lay there is replaced before it is used."""

from __future__ import annotations

from contextlib import AsyncExitStack

from sqlalchemy import text

from abruzzi.kit.db import create_engine, create_sessions, transaction

CONNECTIONS = 4


async def test_connections_that_ended_while_idle_are_replaced_and_nobody_notices(database) -> None:
    engine = create_engine(database.url("app"), pool_size=CONNECTIONS)
    sessions = create_sessions(engine)

    async def backends() -> set[int]:
        """Of so many connections at once."""
        async with AsyncExitStack() as stack:
            open_ones = [await stack.enter_async_context(transaction(sessions)) for _ in range(CONNECTIONS)]
            return {(await each.execute(text("SELECT pg_backend_pid()"))).scalar_one() for each in open_ones}

    try:
        first = await backends()
        assert await backends() == first, "nothing was wrong with them"
        with database.connect("superuser") as superuser:
            superuser.execute("SELECT pg_terminate_backend(pid, 60000) FROM unnest(%s::int[]) pid", [list(first)])
        second = await backends()
        assert len(second) == CONNECTIONS
        assert not second & first
    finally:
        await engine.dispose()
