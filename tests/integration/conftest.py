"""A database of its own for each test, cloned from one that was migrated once."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from abruzzi.kit.db import Sessions, create_engine, create_sessions
from abruzzi.kit.tables import REGISTERED
from abruzzi.migrations import upgrade
from abruzzi_operators.supervisor.postgres import EmbeddedPostgres

assert REGISTERED
_numbers = itertools.count()


@dataclass(frozen=True)
class Database:
    """Addresses by role: `app` (row-level security applies), `controller`, `owner`, and `superuser`, which only tests use."""

    name: str
    server: EmbeddedPostgres

    def url(self, role: str) -> str:
        return self.server.dsn("postgres" if role == "superuser" else f"abruzzi_{role}", self.name)

    def connect(self, role: str) -> psycopg.Connection:
        return psycopg.connect(self.url(role), autocommit=True)

    @asynccontextmanager
    async def sessions(self, role: str = "controller") -> AsyncIterator[Sessions]:
        engine = create_engine(self.url(role))
        try:
            yield create_sessions(engine)
        finally:
            await engine.dispose()


@pytest.fixture(scope="session")
def migrated(postgres: EmbeddedPostgres) -> str:
    """Name of the template."""
    _administer(postgres, "CREATE DATABASE {} OWNER abruzzi_owner", "abruzzi_template")
    upgrade(postgres.dsn("abruzzi_owner", "abruzzi_template"))
    return "abruzzi_template"


@pytest.fixture
def database(postgres: EmbeddedPostgres, migrated: str) -> Iterator[Database]:
    name = f"test_{next(_numbers)}"
    _administer(postgres, "CREATE DATABASE {} TEMPLATE abruzzi_template OWNER abruzzi_owner", name)
    yield Database(name, postgres)
    _administer(postgres, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture
async def sessions(database: Database) -> AsyncIterator[Sessions]:
    """As the controller: sees all projects."""
    async with database.sessions("controller") as made:
        yield made


@pytest.fixture
async def app_sessions(database: Database) -> AsyncIterator[Sessions]:
    """As the application: sees the projects that the transaction names."""
    async with database.sessions("app") as made:
        yield made


@pytest.fixture
def store_root(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    root.mkdir()
    return root


def _administer(server: EmbeddedPostgres, statement: str, name: str) -> None:
    with psycopg.connect(server.dsn("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(sql.Identifier(name)))  # type: ignore[arg-type]
