"""What the supervisor does to the database, each in a process of its own, so that the supervisor itself stays small."""

from __future__ import annotations

from abruzzi.migrations.__main__ import main as migrate


def prepare() -> int:
    """Before API and controller start: newest schema; runs that Ctrl-C interrupted go on."""
    migrate()
    return 0
