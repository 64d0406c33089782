"""New rows that are written together lie there as the unit of work would have written them one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from psycopg import errors
from sqlalchemy.exc import IntegrityError

from abruzzi.contracts.states import RunState, StageKind, StageState
from abruzzi.events.models import EventRow, OutboxRow
from abruzzi.identity.models import IdempotencyRow
from abruzzi.kit.db import Base, Sessions, transaction
from abruzzi.kit.new_rows import at_commit
from abruzzi.runs.models import RunRow, StageRow

MOMENT = datetime(2026, 2, 28, 23, 59, 59, 123456, tzinfo=timezone(timedelta(hours=-5)))
AWKWARD = {
    "é": "∑ \" ' \\ \n\t 😀",
    "none": None,
    "float": 0.1 + 0.2,
    "large": 2**53 + 1,
    "list": [[], {}],
    "%(a)s": ":b %s",
}
Database = Any
WRITTEN_BY_POSTGRES = {"at", "xid", "not_before", "created_at"}


def rows(run_id: str) -> list[Base]:
    """Those that refer to a run come before it."""
    stage = {"run_id": run_id, "project_id": "default", "kind": StageKind.CONTAINER, "state": StageState.WAITING}
    stage |= {"config": AWKWARD, "bindings": {}, "world_size": 2, "max_attempts": 3}
    return [
        StageRow(id="a", position=0, needs=[], facts={}, hang_seconds=1 / 3, **stage),
        StageRow(id="b", position=1, needs=["a", 'x"y,{}'], facts={"loss": 1e-300}, not_before=MOMENT, **stage),
        RunRow(
            id=run_id, project_id="default", name="é", recipe_name="r", recipe=AWKWARD, recipe_toml="a = 'b'\n:c %d", state=RunState.PENDING,
            created_by="test", created_at=MOMENT, wake_at=None,
        ),
        EventRow(project_id="default", run_id=run_id, kind="one", body=AWKWARD),
        EventRow(project_id="default", run_id=run_id, kind="two", body={}),
        OutboxRow(project_id="default", kind="k", body={"run_id": run_id}),
    ]  # fmt: skip


def lie_there(database: Database, run_id: str) -> list[dict[str, Any]]:
    """Without what differs by nature: ids and the times that Postgres sets."""
    found = []
    with database.connect("superuser") as connection:
        for table, condition in (
            ("runs", "id = %s"),
            ("stages", "run_id = %s ORDER BY id"),
            ("events", "run_id = %s ORDER BY id"),
            ("outbox", "body->>'run_id' = %s"),
        ):
            query = f"SELECT to_jsonb({table}) FROM {table} WHERE {condition}"  # noqa: S608
            for (row,) in connection.execute(query, (run_id,)).fetchall():  # type: ignore[arg-type]
                kept = {
                    k: v for k, v in row.items() if table == "runs" or k not in WRITTEN_BY_POSTGRES | {"not_before"}
                }
                own = {"id"} if table in ("events", "outbox") else set()
                found.append({k: "RUN" if v == run_id else v for k, v in kept.items() if k not in own})
    for row in found:
        row["body"] = None if "body" in row and row["body"].get("run_id") else row.get("body")
    return found


async def test_together_they_are_what_they_are_one_by_one(database: Database, sessions: Sessions) -> None:
    async with transaction(sessions, ["default"]) as session:
        session.add_all(rows("aaaaaaaaa1"))
    async with sessions.begin() as session:
        for row in sorted(rows("aaaaaaaaa2"), key=lambda row: not isinstance(row, RunRow)):
            session.add(row)
            await session.flush()
    together, one_by_one = lie_there(database, "aaaaaaaaa1"), lie_there(database, "aaaaaaaaa2")
    assert together == one_by_one
    assert len(together) == 6
    assert [row["kind"] for row in together if row.get("kind") in ("one", "two")] == ["one", "two"]


async def test_rows_with_bytes_a_change_and_an_update_go_in_the_same_transaction(
    database: Database, sessions: Sessions
) -> None:
    async with transaction(sessions, ["default"]) as session:
        session.add_all(rows("aaaaaaaaa3"))
    async with transaction(sessions, ["default"]) as session:
        run = await session.get(RunRow, "aaaaaaaaa3")
        assert run is not None
        run.name = "renamed"
        session.add(EventRow(project_id="default", run_id="aaaaaaaaa3", kind="three", body={}))
        session.add(
            IdempotencyRow(project_id="default", actor="a", key="k", body_hash=b"\0\xff", status=0, response="")
        )
        at_commit(
            session, "UPDATE stages SET reason = :why WHERE run_id = :run", {"why": "it's :so", "run": "aaaaaaaaa3"}
        )
    with database.connect("superuser") as connection:
        assert connection.execute("SELECT name FROM runs WHERE id = 'aaaaaaaaa3'").fetchone() == ("renamed",)
        assert connection.execute("SELECT body_hash FROM idempotency_keys WHERE key = 'k'").fetchone() == (b"\0\xff",)
        kinds = connection.execute("SELECT kind FROM events WHERE run_id = 'aaaaaaaaa3' ORDER BY id").fetchall()
        assert kinds == [("one",), ("two",), ("three",)]
        reasons = connection.execute("SELECT DISTINCT reason FROM stages WHERE run_id = 'aaaaaaaaa3'").fetchall()
        assert reasons == [("it's :so",)]


def duplicate(run_id: str) -> Sequence[Base]:
    return [*rows(run_id), StageRow(**{c: getattr(rows(run_id)[0], c) for c in ("run_id", "id", "project_id", "position", "kind", "state", "needs", "config", "bindings", "world_size", "max_attempts")})]  # fmt: skip


def orphan(run_id: str) -> Sequence[Base]:
    return [row for row in rows(run_id) if not isinstance(row, RunRow)]


@pytest.mark.parametrize(
    ("wrong", "error"), [(duplicate, errors.UniqueViolation), (orphan, errors.ForeignKeyViolation)]
)
async def test_one_that_may_not_be_there_leaves_none(
    database: Database, sessions: Sessions, wrong: Callable[[str], Sequence[Base]], error: type[Exception]
) -> None:
    with pytest.raises(IntegrityError) as raised:
        async with transaction(sessions, ["default"]) as session:
            session.add_all(wrong("aaaaaaaaa4"))
    assert isinstance(raised.value.orig, error)
    assert lie_there(database, "aaaaaaaaa4") == []
