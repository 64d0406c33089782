"""Everything that a database of the platform says, to compare it with another."""

from __future__ import annotations

from typing import Any

import psycopg

from abruzzi.backup import tables


def rows(connection: psycopg.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Of every table; events without their positions (transaction ids, which mean nothing on another server), in their order."""
    found = {}
    for table in tables.tables(connection):
        columns = "kind, body, run_id, at" if table == tables.EVENTS else "*"
        order = "id" if table == tables.EVENTS else "t::text"
        found[table] = connection.execute(f"SELECT {columns} FROM {table} t ORDER BY {order}").fetchall()  # noqa: S608  # type: ignore[arg-type]
    return found
