"""The database session. One request, task or controller step is one transaction, committed at the edge that opened it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from sqlalchemy import MetaData, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

Sessions = async_sessionmaker[AsyncSession]
DATABASE_ERRORS: tuple[type[Exception], ...] = (SQLAlchemyError, psycopg.Error)
"""What a loop that must outlive a restart of Postgres expects."""


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
        }
    )


def create_engine(url: str, *, pool_size: int = 10) -> AsyncEngine:
    """Async engine on psycopg 3. A connection that a restart of Postgres killed is noticed and replaced."""
    parsed = make_url(url).set(drivername="postgresql+psycopg")
    return create_async_engine(parsed, pool_size=pool_size, max_overflow=10, pool_pre_ping=True, pool_timeout=10)


def connect_arguments(url: str) -> dict[str, Any]:
    """Of psycopg's own `connect`, part by part: written as one address, a password with a space in it could not be read back."""
    parsed = make_url(url)
    options = {name: value if isinstance(value, str) else ",".join(value) for name, value in parsed.query.items()}
    return {**parsed.translate_connect_args(username="user", database="dbname"), **options}


def create_sessions(engine: AsyncEngine) -> Sessions:
    return async_sessionmaker(engine, expire_on_commit=False)


@asynccontextmanager
async def transaction(sessions: Sessions, projects: Sequence[str] | None = None) -> AsyncIterator[AsyncSession]:
    """A session in a transaction: committed at the end, rolled back on an error. `projects`: what row-level security lets it see."""
    async with sessions() as session, session.begin():
        if projects is not None:
            await see_projects(session, projects)
        yield session


async def see_projects(session: AsyncSession, projects: Sequence[str]) -> None:
    """For the rest of the transaction. Ids are slugs without commas."""
    await session.execute(
        text("SELECT set_config('abruzzi.projects', :projects, true)"), {"projects": ",".join(projects)}
    )


async def see_project_names(session: AsyncSession) -> None:
    """For the rest of the transaction: the list of all projects, and nothing that is in them."""
    await session.execute(text("SELECT set_config('abruzzi.project_names', 'all', true)"))
