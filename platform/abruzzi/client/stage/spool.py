"""Telemetry that could not be sent, on disk until it can. Order does not matter: the platform takes each point once.

Append-only segments, one JSON body a line. A line that a crash has cut is skipped at replay. Written to the disk for good (fsync) when a
segment is full, every few seconds, and at the end: a crash of the machine costs seconds of curves, never the stage's time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


class Spool:
    """Above `max_bytes` new batches are refused (and counted by the caller), never older ones lost."""

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int = 64 << 20,
        segment_bytes: int = 1 << 20,
        sync_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._max_bytes, self._segment_bytes = max_bytes, segment_bytes
        self._sync_seconds, self._clock = sync_seconds, clock
        self._open: BinaryIO | None = None
        self._synced_at = clock()
        self._folder.mkdir(parents=True, exist_ok=True)
        found = self._segments()
        self._bytes = sum(path.stat().st_size for path in found)
        self._next = int(found[-1].stem) + 1 if found else 0
        self._sent_lines = 0
        """Of the oldest segment, by an earlier call of `replay` that stopped half way."""

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def add(self, body: bytes) -> bool:
        """One batch, without line ends. False when the spool is full. Raises OSError when the disk refuses."""
        line = body + b"\n"
        if self._bytes + len(line) > self._max_bytes:
            return False
        if self._open is None:
            self._open = (self._folder / f"{self._next:010d}.jsonl").open("ab")
            self._next += 1
        self._open.write(line)
        self._open.flush()
        self._bytes += len(line)
        if self._open.tell() >= self._segment_bytes:
            self.seal()
        elif self._clock() - self._synced_at >= self._sync_seconds:
            self._sync(self._open)
        return True

    def replay(self, send: Callable[[bytes], bool]) -> bool:
        """Send every batch, oldest first, until one is not taken. True: nothing is left."""
        self.seal()
        for path in self._segments():
            for number, line in enumerate(_whole_lines(path)):
                if number < self._sent_lines:
                    continue
                if not send(line):
                    return False
                self._sent_lines = number + 1
            self._bytes -= path.stat().st_size
            path.unlink()
            self._sent_lines = 0
        return True

    def seal(self) -> None:
        """No more lines into the open segment."""
        if self._open is not None:
            self._sync(self._open)
            self._open.close()
            self._open = None

    def _sync(self, file: BinaryIO) -> None:
        os.fsync(file.fileno())
        self._synced_at = self._clock()

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob("*.jsonl"))


def _whole_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        for line in file:
            try:
                json.loads(line)
            except ValueError:
                continue
            yield line.rstrip(b"\n")
