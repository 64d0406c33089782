"""Alembic: `python -m abruzzi.migrations` brings the schema to its newest version."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config


def config(url: str, role_urls: dict[str, str] | None = None) -> Config:
    """`role_urls`: connection strings of abruzzi_app and abruzzi_controller, whose passwords the first migration sets when the owner may."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.attributes["url"] = url
    made.attributes["role_urls"] = role_urls or {}
    return made


def upgrade(url: str, role_urls: dict[str, str] | None = None) -> None:
    command.upgrade(config(url, role_urls), "head")
