"""Alembic: `python -m abruzzi.migrations` brings the schema to its newest version."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import make_url

from abruzzi.kit.db import connect_arguments

logger = logging.getLogger(__name__)


def config(url: str) -> Config:
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.attributes["url"] = url
    return made


def upgrade(url: str, role_urls: Mapping[str, str] | None = None, *, to: str = "head") -> None:
    """`role_urls`: connection strings of abruzzi_app and abruzzi_controller, whose passwords are set to what these carry, when the owner may."""
    command.upgrade(config(url), to)
    if role_urls:
        set_passwords(url, role_urls)


def knows(revision: str) -> bool:
    """Whether there is such a migration in this version of the platform."""
    found = ScriptDirectory.from_config(config("")).walk_revisions()
    return revision in {script.revision for script in found}


def set_passwords(url: str, role_urls: Mapping[str, str]) -> None:
    """Each time, so that a changed secret needs nothing else. The server sees verifiers, never the passwords."""
    with psycopg.connect(**connect_arguments(url), autocommit=True) as connection:
        for role, role_url in role_urls.items():
            password = make_url(role_url).password
            if not password:
                continue
            verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
            try:
                connection.execute(
                    sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(verifier.decode()))
                )
            except psycopg.errors.InsufficientPrivilege:
                logger.info("the owner may not set the password of %s: its administrator has", role)
