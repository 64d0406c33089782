"""A database of its own for each test, cloned from one that was migrated once."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.resources import RunOut
from abruzzi.contracts.stage import DirectoryStore as DirectoryConfig
from abruzzi.contracts.states import ArtifactKind
from abruzzi.engine.actions import CollectArtifacts, CreateWorkload, Effect, RemoveWorkload
from abruzzi.engine.decide import decide
from abruzzi.engine.ports import Lease
from abruzzi.engine.view import Phase, Seen
from abruzzi.kit.db import Sessions, create_engine, create_sessions, transaction
from abruzzi.kit.tables import REGISTERED
from abruzzi.migrations import upgrade
from abruzzi.runs import query, submit
from abruzzi.runs.run_store import PostgresRunStore
from abruzzi.store import DirectoryStore, commit_artifact
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
    with _clone(postgres) as made:
        yield made


@pytest.fixture(scope="module")
def shared_database(postgres: EmbeddedPostgres, migrated: str) -> Iterator[Database]:
    """For tests that leave nothing behind."""
    with _clone(postgres) as made:
        yield made


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


@contextmanager
def _clone(server: EmbeddedPostgres) -> Iterator[Database]:
    name = f"test_{next(_numbers)}"
    _administer(server, "CREATE DATABASE {} TEMPLATE abruzzi_template OWNER abruzzi_owner", name)
    try:
        yield Database(name, server)
    finally:
        _administer(server, "DROP DATABASE {} WITH (FORCE)", name)


def _administer(server: EmbeddedPostgres, statement: str, name: str) -> None:
    with psycopg.connect(server.dsn("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(sql.Identifier(name)))  # type: ignore[arg-type]


RECIPE = """
version = 1
name = "chain"

[[stage]]
id = "first"
kind = "container"
[stage.container]
command = ["true"]

[[stage]]
id = "second"
kind = "container"
needs = ["first"]
inputs = { data = "first.files" }
[stage.container]
command = ["true"]

[[stage]]
id = "third"
kind = "container"
needs = ["second"]
gate = "second.score <= 2.0"
inputs = { model = "second.checkpoint" }
[stage.container]
command = ["true"]
"""


class HandClock:
    """Stands still until a test turns it."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def turn(self, seconds: float) -> datetime:
        self.moment += timedelta(seconds=seconds)
        return self.moment


class World:
    """The run store over a real database, and a stand-in for everything that runs: a test says how each attempt ends."""

    def __init__(self, sessions: Sessions, root: Path) -> None:
        self.sessions = sessions
        self.clock = HandClock()
        self.objects = DirectoryStore(root)
        self.store = PostgresRunStore(sessions, self.objects, DirectoryConfig(root=str(root)), self.clock)
        self.scratch = root.parent
        self.seen: dict[str, Seen] = {}
        self.born = Seen(Phase.RUNNING)
        """What a workload looks like when it has just been made."""

    async def submit(
        self, toml: str = RECIPE, *, project_id: str = "default", overrides: dict[str, str] | None = None
    ) -> str:
        async with transaction(self.sessions) as session:
            made = await submit.submit(
                session, project_id=project_id, objects=self.objects, recipe_toml=toml, overrides=overrides, actor="me", now=self.clock.now()
            )  # fmt: skip
        return made.id

    async def do(self, verb: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any) -> Any:
        """One service call in one transaction."""
        async with transaction(self.sessions) as session:
            return await verb(session, *arguments, now=self.clock.now(), **named)

    async def get(self, run_id: str) -> RunOut:
        return await self.do(query.get, run_id)

    async def lease(self, owner: str = "one", *, limit: int = 10, ttl_seconds: float = 15.0) -> list[Lease]:
        return list(await self.store.lease(owner, limit=limit, ttl_seconds=ttl_seconds))

    async def steps(self, run_id: str) -> list[Effect]:
        """Decide and apply until it is quiet. Returns the effects, artifacts collected on the way."""
        asked: list[Effect] = []
        now = self.clock.now().timestamp()
        lease = None
        for found in await self.lease():
            if found.run_id == run_id:
                lease = found
            else:
                await self.store.release(found, wake_at=now)
        if lease is None:
            return asked
        while True:
            view = await self.store.load(run_id)
            for stage in view.stages:
                for attempt in stage.attempts:
                    self.seen.setdefault(attempt.id, Seen(Phase.GONE))
            decision = decide(view, self.seen, self.clock.now().timestamp())
            asked += [*decision.before, *decision.after]
            for effect in [*decision.before, *decision.after]:
                match effect:
                    case CollectArtifacts():
                        await self.store.collect_artifacts(lease, effect.attempt_id)
                    case CreateWorkload():
                        self.seen[effect.attempt_id] = self.born
                    case RemoveWorkload():
                        self.seen[effect.attempt_id] = Seen(Phase.GONE)
                    case _:
                        pass
            if decision.writes:
                await self.store.apply(lease, view.version, decision.writes)
            elif not decision.after:
                await self.store.release(lease, wake_at=self.clock.now().timestamp())
                return asked

    async def end(self, attempt_id: str, exit_code: int = 0) -> None:
        """The attempt's process exits; everything that follows from it happens."""
        self.seen[attempt_id] = Seen(Phase.EXITED, exit_code=exit_code)
        await self.steps(attempt_id[:10])

    async def commit(
        self, attempt_id: str, kind: str, name: str, text: str = "content", *, step: int | None = None, **meta: Any
    ) -> tuple[str, Manifest]:
        """What the attempt's process would commit."""
        source = self.scratch / "committed.txt"
        source.write_text(text)
        spec = await self.store.spec(attempt_id)
        return commit_artifact(
            self.objects, spec, kind=ArtifactKind(kind), name=name, files={"file.txt": source}, step=step, meta=meta
        )


@pytest.fixture
async def world(sessions: Sessions, store_root: Path) -> World:
    return World(sessions, store_root)
