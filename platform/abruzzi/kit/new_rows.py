"""All new rows of a transaction in one statement.

Each statement is a message to Postgres and back, which costs both sides more CPU than a row: five INSERTs of one or two rows and the unit of work
around them were a third of what a submission of a run costs the API. A table's rows are one JSON parameter, so the statement is the same text
however many they are, and is prepared once; psycopg keeps no statement with more than fifty parameters.
"""

from __future__ import annotations

import json
from datetime import date
from functools import lru_cache
from typing import Any

from sqlalchemy import LargeBinary, Table, TextClause, inspect, text
from sqlalchemy.ext.asyncio import AsyncSession

_AT_COMMIT = "at commit"
Shape = tuple[Table, tuple[str, ...]]


def at_commit(session: AsyncSession, statement: str, values: dict[str, Any]) -> None:
    """A change without an answer that goes with the new rows. None of its parameters is called `rows_…`."""
    session.info.setdefault(_AT_COMMIT, []).append((statement, values))


async def write_new_rows(session: AsyncSession) -> None:
    """The session forgets them: for the end of a transaction. Rows may refer to each other; foreign keys are looked at when a statement ends."""
    changes = session.info.pop(_AT_COMMIT, [])
    if session.dirty or session.deleted or any(_has_bytes(inspect(row).mapper.local_table) for row in session.new):
        await session.flush()
    tables: dict[Shape, list[dict[str, Any]]] = {}
    for row in list(session.new):
        table, values = _values(row)
        tables.setdefault((table, tuple(values)), []).append(values)
        session.expunge(row)
    parameters: dict[str, Any] = {}
    for _, values in changes:
        parameters |= values
    for number, rows in enumerate(tables.values()):
        parameters[f"rows_{number}"] = json.dumps(rows, default=_told)
    if parameters:
        await session.execute(_statement(tuple(tables), tuple(statement for statement, _ in changes)), parameters)


def _values(row: Any) -> tuple[Table, dict[str, Any]]:
    """As the unit of work sees them: nothing is the default of the model where it has one, is left to Postgres where the model says so, and else is NULL (also
    in JSON columns)."""
    state, found = inspect(row), {}
    for attribute in state.mapper.column_attrs:
        column = attribute.columns[0]
        value = state.dict.get(attribute.key)
        if value is None and column.default is not None:
            value = column.default.arg(None) if column.default.is_callable else column.default.arg
        if value is not None or column.server_default is None:
            found[column.name] = value
    return state.mapper.local_table, found


def _told(value: object) -> str:
    """Days and times."""
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(
        f"no column of ours holds a {type(value).__name__}: write the row by `session.flush()`, or teach kit/new_rows.py"
    )


@lru_cache(maxsize=256)
def _statement(shapes: tuple[Shape, ...], changes: tuple[str, ...]) -> TextClause:
    """All names are those of our models."""
    parts = list(changes)
    for number, (table, columns) in enumerate(shapes):
        listed = ", ".join(f'"{name}"' for name in columns)
        rows = f'jsonb_populate_recordset(NULL::"{table.name}", CAST(:rows_{number} AS jsonb))'
        parts.append(f'INSERT INTO "{table.name}" ({listed}) SELECT {listed} FROM {rows}')  # noqa: S608
    *others, last = parts
    together = ", ".join(f"also_{number} AS ({part})" for number, part in enumerate(others))
    return text(f"WITH {together} {last}" if others else last)


@lru_cache(maxsize=256)
def _has_bytes(table: Table) -> bool:
    return any(isinstance(column.type, LargeBinary) for column in table.columns)
