"""The tables of a world in SQLite: one an entity, with every invariant of its schema as a constraint. Names come from schemas that
allow `[a-z][a-z0-9_]*` only, and are quoted; values are always bound."""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
from typing import Any

from abruzzi.contracts.tool import EntitySchema, FieldSchema, StateSchema

Row = dict[str, Any]
Snapshot = dict[str, list[Row]]
FIRST_DAY = "2026-01-01"


class Tables:
    """`rows_each` seeded rows an entity: their statuses go round, and the last row of each is referred to by nobody."""

    def __init__(self, state: StateSchema, seed: int, rows_each: int) -> None:
        self.state = state
        self._flags = {e.name: tuple(f.name for f in e.fields if f.kind == "boolean") for e in state.entities}
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA foreign_keys = ON")
        for entity in state.entities:
            self._db.execute(_table(entity))
        draw = random.Random(f"world/{seed}")
        for entity in state.entities:
            for number in range(1, rows_each + 1):
                self.insert(entity, _seeded_row(entity, draw, number, rows_each))

    def begin(self) -> None:
        self._db.execute("SAVEPOINT call")

    def keep(self) -> None:
        self._db.execute("RELEASE call")

    def undo(self) -> None:
        self._db.execute("ROLLBACK TO call")
        self._db.execute("RELEASE call")

    @property
    def written(self) -> int:
        """Rows written so far, undone ones too: where it has not grown, the state is the same."""
        return self._db.total_changes

    def row(self, entity: str, number: Any) -> Row | None:
        found = self._db.execute(f'SELECT * FROM "{entity}" WHERE "{entity}_id" = ?', (number,)).fetchone()  # noqa: S608
        return None if found is None else self._plain(entity, found)

    def rows(self, entity: str, where: Row | None = None, contains: tuple[str, str] | None = None) -> list[Row]:
        """By id. `contains`: (field, part), letters alike whatever their case."""
        clauses = [f'"{name}" = ?' for name in where or {}]
        values = list((where or {}).values())
        if contains is not None:
            clauses.append(f'instr(lower("{contains[0]}"), lower(?)) > 0')
            values.append(contains[1])
        chosen = " AND ".join(clauses) or "1"
        found = self._db.execute(f'SELECT * FROM "{entity}" WHERE {chosen} ORDER BY "{entity}_id"', values)  # noqa: S608
        return [self._plain(entity, row) for row in found]

    def count(self, entity: str, where: Row | None = None) -> int:
        chosen = " AND ".join(f'"{name}" = ?' for name in where or {}) or "1"
        query = f'SELECT count(*) FROM "{entity}" WHERE {chosen}'  # noqa: S608
        return self._db.execute(query, list((where or {}).values())).fetchone()[0]

    def grouped(self, entity: str, by: str, total: str | None) -> dict[str, int]:
        figure = f'sum("{total}")' if total else "count(*)"
        return dict(self._db.execute(f'SELECT "{by}", {figure} FROM "{entity}" GROUP BY "{by}"').fetchall())  # noqa: S608

    def insert(self, entity: EntitySchema, row: Row) -> int:
        """Raises sqlite3.IntegrityError where an invariant forbids it."""
        names = ", ".join(f'"{name}"' for name in row)
        marks = ", ".join("?" for _ in row)
        done = self._db.execute(f'INSERT INTO "{entity.name}" ({names}) VALUES ({marks})', list(row.values()))  # noqa: S608
        assert done.lastrowid is not None
        return done.lastrowid

    def change(self, entity: str, number: int, values: Row) -> None:
        if values:
            sets = ", ".join(f'"{name}" = ?' for name in values)
            self._db.execute(f'UPDATE "{entity}" SET {sets} WHERE "{entity}_id" = ?', [*values.values(), number])  # noqa: S608

    def delete(self, entity: str, number: int) -> None:
        self._db.execute(f'DELETE FROM "{entity}" WHERE "{entity}_id" = ?', (number,))  # noqa: S608

    def snapshot(self) -> Snapshot:
        return {entity.name: self.rows(entity.name) for entity in self.state.entities}

    def digest(self) -> str:
        return digest_of(self.snapshot())

    def close(self) -> None:
        self._db.close()

    def _plain(self, entity: str, row: sqlite3.Row) -> Row:
        plain = dict(zip(row.keys(), row, strict=True))
        for name in self._flags[entity]:
            plain[name] = bool(plain[name])
        return plain


def digest_of(snapshot: Snapshot) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(snapshot, sort_keys=True).encode()).hexdigest()


def difference(before: Snapshot, after: Snapshot) -> list[dict[str, Any]]:
    """What changed: {entity, id, before, after}, with the changed fields alone; None where there was or is no row."""
    changes = []
    for entity in after:
        old = {row[f"{entity}_id"]: row for row in before[entity]}
        new = {row[f"{entity}_id"]: row for row in after[entity]}
        for number in sorted({*old, *new}):
            was, now = old.get(number), new.get(number)
            if was != now:
                names = [name for name in (now or was or {}) if was is None or now is None or was[name] != now[name]]
                parts = [None if row is None else {name: row[name] for name in names} for row in (was, now)]
                changes.append({"entity": entity, "id": number, "before": parts[0], "after": parts[1]})
    return changes


def _table(entity: EntitySchema) -> str:
    columns = [f'"{entity.key}" INTEGER PRIMARY KEY AUTOINCREMENT', *(_column(field) for field in entity.fields)]
    return f'CREATE TABLE "{entity.name}" ({", ".join(columns)})'


def _column(field: FieldSchema) -> str:
    name = f'"{field.name}"'
    if field.kind == "reference":
        return f'{name} INTEGER NOT NULL REFERENCES "{field.entity}"'
    if field.kind == "boolean":
        return f"{name} INTEGER NOT NULL CHECK ({name} IN (0, 1))"
    if field.kind == "integer":
        low = "" if field.minimum is None else f" AND {name} >= {field.minimum}"
        high = "" if field.maximum is None else f" AND {name} <= {field.maximum}"
        return f"{name} INTEGER NOT NULL CHECK (typeof({name}) = 'integer'{low}{high})"
    if field.kind in ("choice", "status"):
        listed = ", ".join("'" + choice.replace("'", "''") + "'" for choice in field.choices)
        return f"{name} TEXT NOT NULL CHECK ({name} IN ({listed}))"
    if field.kind == "date":
        return f"{name} TEXT NOT NULL CHECK ({name} GLOB '20[0-9][0-9]-[0-1][0-9]-[0-3][0-9]')"
    return f"{name} TEXT NOT NULL CHECK ({name} <> '')"


def default(field: FieldSchema) -> Any:
    """Of a field that a call to create leaves out."""
    if field.kind == "boolean":
        return False
    if field.kind == "integer":
        return min(max(0, field.minimum or 0), field.maximum if field.maximum is not None else 0)
    if field.kind in ("choice", "status"):
        return field.choices[0]
    return FIRST_DAY if field.kind == "date" else "-"


def sample_value(field: FieldSchema, draw: random.Random, rows_each: int) -> Any:
    if field.kind == "reference":
        return draw.randint(1, max(1, rows_each - 1))
    if field.kind == "boolean":
        return draw.random() < 0.5
    if field.kind == "integer":
        low, high = field.minimum or 0, field.maximum if field.maximum is not None else 1000
        return draw.randint(low, high)
    if field.kind in ("choice", "status"):
        return draw.choice(field.choices)
    if field.kind == "date":
        return f"2026-{draw.randint(1, 12):02d}-{draw.randint(1, 28):02d}"
    return draw.choice(field.examples) if field.examples else f"{field.name} {draw.randint(1, 99)}"


def _seeded_row(entity: EntitySchema, draw: random.Random, number: int, rows_each: int) -> Row:
    row = {field.name: sample_value(field, draw, rows_each) for field in entity.fields}
    if entity.status is not None:
        row["status"] = entity.status.choices[(number - 1) % len(entity.status.choices)]
    return row
