"""The database session. One request, task or controller step is one transaction, committed at the edge that opened it."""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from sqlalchemy import MetaData, event, make_url, text
from sqlalchemy.exc import InvalidatePoolError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from abruzzi.kit.new_rows import write_new_rows

logger = logging.getLogger(__name__)
Sessions = async_sessionmaker[AsyncSession]
DATABASE_ERRORS: tuple[type[Exception], ...] = (SQLAlchemyError, psycopg.Error)
"""What a loop that must outlive a restart of Postgres expects."""
_RINGS = "rings"
_POOL_SECONDS = 30.0
_NOTIFY = text(
    "SELECT pg_notify(channel, payload) FROM unnest(CAST(:channels AS text[]), CAST(:payloads AS text[])) AS rings (channel, payload)"
)


@dataclass(eq=False, slots=True)
class Bell:
    """Of one engine: rings of committed transactions that nobody has sent yet, and whose turn it is to send."""

    waiting: dict[tuple[str, str], None] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


_bells: WeakKeyDictionary[Any, Bell] = WeakKeyDictionary()


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
        }
    )


def create_engine(url: str, *, pool_size: int = 10, overflow: int = 10) -> AsyncEngine:
    """Async engine on psycopg 3. A connection that a restart of Postgres killed is noticed and replaced. `overflow`: connections beyond
    `pool_size` for as long as they are wanted; who gets none waits."""
    parsed = make_url(url).set(drivername="postgresql+psycopg")
    engine = create_async_engine(parsed, pool_size=pool_size, max_overflow=overflow, pool_timeout=_POOL_SECONDS)
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def _refuse_closed(connection: Any, _record: Any, _fairy: Any) -> None:
    """Postgres says nothing on an idle connection but that it ends. Looking costs microseconds; asking (`pool_pre_ping`) would be one of
    seven messages of a small transaction."""
    waiting = select.poll()
    try:
        waiting.register(connection.driver_connection.fileno(), select.POLLIN)
        is_closed = bool(waiting.poll(0))
    except psycopg.Error:
        is_closed = True
    if is_closed:
        raise InvalidatePoolError()


def connect_arguments(url: str) -> dict[str, Any]:
    """Of psycopg's own `connect`, part by part: written as one address, a password with a space in it could not be read back."""
    parsed = make_url(url)
    options = {name: value if isinstance(value, str) else ",".join(value) for name, value in parsed.query.items()}
    return {**parsed.translate_connect_args(username="user", database="dbname"), **options}


def create_sessions(engine: AsyncEngine) -> Sessions:
    return async_sessionmaker(engine, expire_on_commit=False)


def create_lookups(engine: AsyncEngine) -> Sessions:
    """Sessions for a single statement that changes nothing: each is a transaction by itself, without the messages that begin and end one."""
    return create_sessions(engine.execution_options(isolation_level="AUTOCOMMIT"))


@asynccontextmanager
async def single_statements(sessions: Sessions) -> AsyncIterator[AsyncSession]:
    """A session of a role that row-level security does not bind, in which each statement is a transaction by itself (see create_lookups)."""
    async with sessions() as session:
        await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        yield session


@asynccontextmanager
async def transaction(sessions: Sessions, projects: Sequence[str] | None = None) -> AsyncIterator[AsyncSession]:
    """A session in a transaction: committed at the end, rolled back on an error. `projects`: what row-level security lets it see."""
    async with sessions() as session:
        async with session.begin():
            if projects is not None:
                await see_projects(session, projects)
            yield session
            await write_new_rows(session)
        await _ring(session)


def ring_after_commit(session: AsyncSession, channel: str, payload: str) -> None:
    """NOTIFY, once the transaction is committed; the same ring twice is one."""
    session.info.setdefault(_RINGS, {})[channel, payload] = None


def bell_of(session: AsyncSession) -> Bell:
    return _bells.setdefault(session.get_bind(), Bell())


async def _ring(session: AsyncSession) -> None:
    """In a statement of its own: Postgres lets transactions with a NOTIFY commit one after the other only, each waiting for the disk. One that
    writes nothing waits for none. Whoever commits while another's rings are on their way is rung for together with all who did: a burst costs
    few statements, and nobody rings later for it. A ring that is lost delays what would have been looked at."""
    if not (rings := session.info.pop(_RINGS, None)):
        return
    bell = bell_of(session)
    bell.waiting |= rings
    async with bell.turn:
        if not any(ring in bell.waiting for ring in rings):
            return
        sent, bell.waiting = bell.waiting, {}
        channels, payloads = zip(*sent, strict=True)
        try:
            await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            await session.execute(_NOTIFY, {"channels": list(channels), "payloads": list(payloads)})
        except BaseException as error:
            # Whoever is next rings for the others; the own rings are given up, so that what nobody can send does not gather.
            bell.waiting = {ring: None for ring in sent if ring not in rings} | bell.waiting
            if not isinstance(error, DATABASE_ERRORS):
                raise
            logger.warning("committed, but nobody could be rung (%s)", type(error).__name__)


async def see_projects(session: AsyncSession, projects: Sequence[str]) -> None:
    """For the rest of the transaction. Ids are slugs without commas."""
    await session.execute(
        text("SELECT set_config('abruzzi.projects', :projects, true)"), {"projects": ",".join(projects)}
    )


async def see_project_names(session: AsyncSession) -> None:
    """For the rest of the transaction: the list of all projects, and nothing that is in them."""
    await session.execute(text("SELECT set_config('abruzzi.project_names', 'all', true)"))
