"""Telemetry that could not be sent, on disk until it can. Order does not matter: the platform takes each point once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


class Spool:
    """Files in a folder of its own, newest last. Above `max_bytes` the newest batches are refused (and counted), never the oldest lost."""

    def __init__(self, folder: Path, *, max_bytes: int = 64 << 20) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._folder.mkdir(parents=True, exist_ok=True)
        found = self._files()
        self._bytes = sum(path.stat().st_size for path in found)
        self._next = int(found[-1].stem) + 1 if found else 0

    def __len__(self) -> int:
        return len(self._files())

    def add(self, body: bytes) -> bool:
        """False when the spool is full."""
        if self._bytes + len(body) > self._max_bytes:
            return False
        path = self._folder / f"{self._next:010d}.json"
        partial = path.with_suffix(".part")
        partial.write_bytes(body)
        os.replace(partial, path)
        self._next += 1
        self._bytes += len(body)
        return True

    def waiting(self) -> Iterator[tuple[Path, bytes]]:
        """Oldest first."""
        for path in self._files():
            yield path, path.read_bytes()

    def done(self, path: Path) -> None:
        self._bytes -= path.stat().st_size
        path.unlink()

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("*.json"))
