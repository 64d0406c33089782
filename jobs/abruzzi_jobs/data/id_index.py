"""Ids that were there, on disk: memory does not grow with their number."""

from __future__ import annotations

import sqlite3
from hashlib import blake2b

_CACHE_KIB = 2048
_BATCH = 20_000
"""Ids between two commits: what is rolled back does not matter, only how much of a transaction lies about."""


class IdIndex:
    """A temporary SQLite database, which goes with this object. For one thread at a time."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("CREATE TABLE ids (id BLOB PRIMARY KEY, first INTEGER, second INTEGER) WITHOUT ROWID")
        self._database.execute("BEGIN")
        self._since = 0

    def add(self, identity: bytes, place: tuple[int, int] = (0, 0)) -> bool:
        """False where it was there; the place that it has stays."""
        done = self._database.execute("INSERT OR IGNORE INTO ids VALUES (?, ?, ?)", (identity, *place))
        self._since += 1
        if self._since >= _BATCH:
            self._database.execute("COMMIT")
            self._database.execute("BEGIN")
            self._since = 0
        return done.rowcount == 1

    def find(self, identity: bytes) -> tuple[int, int] | None:
        return self._database.execute("SELECT first, second FROM ids WHERE id = ?", (identity,)).fetchone()


def short(text: str) -> bytes:
    """Sixteen bytes of it: no two texts that anybody writes have the same."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
