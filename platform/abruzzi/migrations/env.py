"""Alembic's environment: one transaction, one lock, so that two migrating processes take turns."""

from __future__ import annotations

from typing import Any, cast

from alembic import context
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.dialects.postgresql.base import ischema_names

from abruzzi.events.models import Xid8
from abruzzi.kit.db import Base
from abruzzi.kit.tables import REGISTERED

config = context.config
assert REGISTERED  # importing the module registers every noun's tables with Base.metadata


cast("dict[str, Any]", ischema_names)["xid8"] = Xid8


def include_name(name: str | None, kind: str, parents: object) -> bool:
    """Partitions belong to their parent table."""
    return not (kind == "table" and name is not None and "_part_" in name)


def include_object(thing: object, name: str | None, kind: str, reflected: bool, other: object) -> bool:
    """Indexes are the migrations' business alone: models say what a row is, not how it is found."""
    return not (kind == "index" and reflected and other is None)


def run() -> None:
    engine = create_engine(make_url(config.attributes["url"]).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            include_name=include_name,
            include_object=include_object,
            compare_type=True,
        )
        with context.begin_transaction():
            connection.execute(text("SELECT pg_advisory_xact_lock(742001)"))
            context.run_migrations()
    engine.dispose()


run()
