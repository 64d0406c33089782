"""All rows of all tables, as text that any version of PostgreSQL reads: out of one snapshot, into an empty database of the same schema.

COPY and not pg_dump: images need no client of the server's own version, and the schema is the migrations' anyway, so a backup names its revision.
Row-level security is forced on the owner, too. It has a policy for reading; for loading, force is lifted inside the one transaction.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import psycopg
from psycopg import sql
from pydantic import BaseModel, ConfigDict

from abruzzi.contracts.errors import AbruzziError
from abruzzi.kit.db import connect_arguments

_CHUNK = 1 << 20
_VERSIONS = "alembic_version"
EVENTS = "events"
"""Their positions are transaction ids (migration 0001). Those of another server mean nothing, so loading gives new ones in the same order."""
_MIGRATION_LOCK = 742001


class TableFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rows: int
    columns: tuple[str, ...]
    sha256: str
    """Of the text before compression."""


@contextmanager
def snapshot(owner_url: str) -> Iterator[psycopg.Connection]:
    """A connection that sees one moment for as long as the block lasts."""
    with psycopg.connect(**connect_arguments(owner_url)) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        yield connection


def revision(connection: psycopg.Connection) -> str | None:
    """Of the schema; None where there is none."""
    there = connection.execute("SELECT to_regclass(%s)", [_VERSIONS]).fetchone()
    if there is None or there[0] is None:
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return row[0] if row else None


def dump(connection: psycopg.Connection, folder: Path) -> dict[str, TableFile]:
    """Each table to `folder`/<table>.copy.gz, in the order of its primary key, so that the same rows have the same digest."""
    folder.mkdir(parents=True)
    return {table: _dump_table(connection, table, folder / f"{table}.copy.gz") for table in tables(connection)}


def load(
    owner_url: str, folder: Path, files: Mapping[str, TableFile], *, gone: Sequence[str] = (), overwrite: bool = False
) -> None:
    """All tables in one transaction; artifacts whose manifests are `gone` are marked deleted. Raises AbruzziError `not_empty` where there are runs already and `overwrite` does not say that they may go."""
    with psycopg.connect(**connect_arguments(owner_url)) as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_MIGRATION_LOCK])
        there = tables(connection)
        if missing := files.keys() - set(there):
            raise AbruzziError("corrupt_backup", f"This schema has no table {', '.join(sorted(missing))}.", status=409)
        if not overwrite and is_used(connection):
            raise AbruzziError(
                "not_empty",
                "The database holds runs already.",
                status=409,
                hint="Restore into an empty database, or say --overwrite: everything in it is replaced.",
            )
        names = sql.SQL(", ").join(map(sql.Identifier, there))
        connection.execute(sql.SQL("TRUNCATE {}").format(names))
        forced = _forced(connection)
        for table in there:
            name = sql.Identifier(table)
            connection.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(name))
            if table in forced:
                connection.execute(sql.SQL("ALTER TABLE {} NO FORCE ROW LEVEL SECURITY").format(name))
        for table in (table for table in _parents_first(connection, there) if table in files):
            _load_table(connection, table, files[table], folder / f"{table}.copy.gz")
        connection.execute("UPDATE artifacts SET deleted_at = now() WHERE manifest_key = ANY(%s)", [list(gone)])
        for table in there:
            name = sql.Identifier(table)
            if table in forced:
                connection.execute(sql.SQL("ALTER TABLE {} FORCE ROW LEVEL SECURITY").format(name))
            connection.execute(sql.SQL("ALTER TABLE {} ENABLE TRIGGER USER").format(name))
        _set_sequences(connection, there)


def is_used(connection: psycopg.Connection) -> bool:
    """Whether anything would be lost: projects, tokens of a first start and pools do not count."""
    return connection.execute("SELECT 1 FROM runs UNION ALL SELECT 1 FROM recipes LIMIT 1").fetchone() is not None


def tables(connection: psycopg.Connection) -> list[str]:
    """Partitions belong to their parent; the schema's version is no data."""
    found = connection.execute(
        """SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
           AND relname <> %s ORDER BY relname""",
        [_VERSIONS],
    )
    return [name for (name,) in found]


def verify(folder: Path, files: Mapping[str, TableFile]) -> Iterator[str]:
    """A sentence for each file that is not what the backup says."""
    for table, file in files.items():
        digest, rows = hashlib.sha256(), 0
        try:
            for chunk in _read(folder / f"{table}.copy.gz"):
                digest.update(chunk)
                rows += chunk.count(b"\n")
        except (OSError, EOFError) as error:
            yield f"table {table} cannot be read: {error}"
            continue
        if (digest.hexdigest(), rows) != (file.sha256, file.rows):
            yield f"table {table} is not what was written"


def _dump_table(connection: psycopg.Connection, table: str, path: Path) -> TableFile:
    columns = _columns(connection, table)
    order = sql.SQL(", ").join(map(sql.Identifier, _primary_key(connection, table)))
    query = sql.SQL("COPY (SELECT {} FROM {} ORDER BY {}) TO STDOUT").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(table), order
    )
    digest, rows = hashlib.sha256(), 0
    with gzip.GzipFile(path, "wb", compresslevel=3, mtime=0) as file, connection.cursor().copy(query) as copy:
        for part in copy:
            data = bytes(part)
            digest.update(data)
            rows += data.count(b"\n")  # text format: a newline inside a value is written as \n
            file.write(data)
    return TableFile(rows=rows, columns=tuple(columns), sha256=digest.hexdigest())


def _load_table(connection: psycopg.Connection, table: str, file: TableFile, path: Path) -> None:
    columns = sql.SQL(", ").join(map(sql.Identifier, file.columns))
    target = sql.Identifier(table)
    if table == EVENTS:
        target = sql.Identifier("restored_events")
        connection.execute("CREATE TEMP TABLE restored_events (LIKE events) ON COMMIT DROP")
    with connection.cursor().copy(sql.SQL("COPY {} ({}) FROM STDIN").format(target, columns)) as copy:
        for chunk in _read(path):
            copy.write(chunk)
    if table == EVENTS:
        # The highest position is this transaction's last possible one; what is written later lies above.
        connection.execute(
            """UPDATE restored_events e SET xid = pg_current_xact_id(), id = n.position FROM (
                 SELECT id, ((pg_current_xact_id()::text::bigint + 1) << 20) - count(*) OVER () + row_number() OVER (ORDER BY id) - 1 AS position
                 FROM restored_events) n WHERE n.id = e.id"""
        )
        connection.execute(sql.SQL("INSERT INTO events ({0}) SELECT {0} FROM restored_events").format(columns))


def _columns(connection: psycopg.Connection, table: str) -> list[str]:
    found = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
        [table],
    )
    return [name for (name,) in found]


def _primary_key(connection: psycopg.Connection, table: str) -> Sequence[str]:
    found = connection.execute(
        """SELECT a.attname FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k(number, position), pg_attribute a
           WHERE i.indrelid = %s::regclass AND i.indisprimary AND a.attrelid = i.indrelid AND a.attnum = k.number ORDER BY k.position""",
        [table],
    )
    return [name for (name,) in found]


def _forced(connection: psycopg.Connection) -> set[str]:
    query = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relforcerowsecurity"
    return {name for (name,) in connection.execute(query)}


def _parents_first(connection: psycopg.Connection, names: Sequence[str]) -> list[str]:
    """In the order of their foreign keys."""
    needs: dict[str, set[str]] = {name: set() for name in names}
    query = """SELECT child.relname, parent.relname FROM pg_constraint c JOIN pg_class child ON child.oid = c.conrelid
               JOIN pg_class parent ON parent.oid = c.confrelid WHERE c.contype = 'f' AND c.conrelid <> c.confrelid"""
    for child, parent in connection.execute(query):
        if child in needs and parent in needs:
            needs[child].add(parent)
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise AbruzziError("schema", f"Tables refer to each other in a circle: {error.args[1]}.", status=500) from error


def _set_sequences(connection: psycopg.Connection, names: Sequence[str]) -> None:
    query = """SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
               WHERE c.relnamespace = 'public'::regnamespace AND a.attidentity <> '' AND c.relname = ANY(%s)"""
    for table, column in connection.execute(query, [list(names)]).fetchall():
        connection.execute(
            sql.SQL("SELECT setval(pg_get_serial_sequence({}, {}), coalesce(max({}), 0) + 1, false) FROM {}").format(
                sql.Literal(table), sql.Literal(column), sql.Identifier(column), sql.Identifier(table)
            )
        )


def _read(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
