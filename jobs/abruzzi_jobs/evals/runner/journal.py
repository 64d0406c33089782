"""Finished items of a suite, kept in the object store while others are asked: parts of some hundred rows, each one atomic object.

Items are finished in the suite's order, so the parts hold a beginning of it, and a next attempt goes on behind that. Items that the infrastructure
failed are asked again; their new rows stand in later parts and count instead of the old ones. Memory does not grow with the items.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

import zstandard

from abruzzi.contracts.errors import AbruzziError, NotFound
from abruzzi.contracts.evaluation import ItemStatus
from abruzzi.store import ObjectStore
from abruzzi_jobs.chat.calls import pack
from abruzzi_jobs.data.text_shards import zstd_lines

JOURNAL_FOLDER = "answers/"
"""Below the stage's output prefix."""
PART_BYTES = 1 << 20
PART_SECONDS = 1.0
_FINISHED = "finished"
Rows = list[dict[str, Any]]

logger = logging.getLogger(__name__)


class Journal:
    """Below `prefix` (ends with /), which names suite, settings and target: what was asked otherwise is not taken for it. One writer."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        self._store, self._prefix = store, prefix
        self._lines: list[bytes] = []
        self._size = 0
        self._since = time.monotonic()
        self._parts = 0
        self.done = 0
        """Items of the suite's beginning that are finished."""
        self.again: set[int] = set()
        """Numbers of those among them that the infrastructure failed."""

    def open(self) -> None:
        """Reads how far earlier attempts came. A damaged part ends what is taken: it and those behind it are removed and made again.

        Raises AbruzziError, such as store_away, where the store says nothing of a part: none is removed for that."""
        for number in range(len(self._keys())):
            entries = self._read(number)
            if entries is None:
                for key in self._keys()[number:]:
                    self._store.delete(key)
                break
            for place, rows in entries:
                self._note(place, rows)
            self._parts = number + 1

    async def add(self, place: int, rows: Rows) -> None:
        """The rows of the item that is `place`-th in the suite; the next one, or one of `again`."""
        line = json.dumps([place, rows], ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        self._lines.append(line.encode("utf-8", "replace"))
        self._size += len(line)
        self._note(place, rows)
        if self._size >= PART_BYTES or time.monotonic() - self._since >= PART_SECONDS:
            await self.flush()

    async def flush(self) -> None:
        """Returns when everything that was added is in the store. Raises AbruzziError `conflict` where somebody else writes here."""
        lines, self._lines, self._size, self._since = self._lines, [], 0, time.monotonic()
        if lines:
            await asyncio.to_thread(self._put, lines)

    def entries(self) -> Iterator[tuple[int, Rows]]:
        """(number, rows) of each item, in the suite's order, the newest rows of each. Only what was asked again is held in memory."""
        newer: dict[int, Rows] = {}
        highest = -1
        for number in range(self._parts):
            for place, rows in self._read_whole(number):
                if place <= highest:
                    newer[place] = rows
                highest = max(highest, place)
        highest = -1
        for number in range(self._parts):
            for place, rows in self._read_whole(number):
                if place > highest:
                    highest = place
                    yield place, newer.get(place, rows)

    def finish(self, attempt: str) -> None:
        """Says to whom waits for this journal that `attempt` adds nothing more to it."""
        self._store.put(f"{self._prefix}{_FINISHED}", attempt.encode())

    def is_finished(self, attempt: str) -> bool:
        """Whether it was said by the same attempt: an earlier one's items may be asked again."""
        try:
            return self._store.get(f"{self._prefix}{_FINISHED}") == attempt.encode()
        except NotFound:
            return False

    def discard(self) -> None:
        """Once the rows are committed as an artifact."""
        for key in [*self._keys(), f"{self._prefix}{_FINISHED}"]:
            self._store.delete(key)

    def _note(self, place: int, rows: Rows) -> None:
        self.done = max(self.done, place + 1)
        (self.again.add if _lacks(rows) else self.again.discard)(place)

    def _put(self, lines: Sequence[bytes]) -> None:
        key = f"{self._prefix}part-{self._parts:06d}.jsonl.zst"
        part = pack([str(len(lines)).encode(), *lines])
        # A write whose answer was lost is tried again inside of the store, and finds itself.
        if not self._store.put_if_absent(key, part) and self._store.get(key) != part:
            raise AbruzziError(
                "conflict", f"{key} is there: another attempt of this stage is at work.", status=503, hint="Stop one."
            )
        self._parts += 1

    def _keys(self) -> list[str]:
        return sorted(key for key in self._store.list(self._prefix) if key.endswith(".jsonl.zst"))

    def _read_whole(self, number: int) -> list[tuple[int, Rows]]:
        found = self._read(number)
        if found is None:
            raise AbruzziError("bad_data", f"{self._prefix}: part {number} is damaged.", status=503)
        return found

    def _read(self, number: int) -> list[tuple[int, Rows]] | None:
        key = f"{self._prefix}part-{number:06d}.jsonl.zst"
        try:
            count, *lines = zstd_lines(io.BytesIO(self._store.get(key)))
            if int(count) != len(lines):
                raise ValueError(f"{len(lines)} lines instead of {int(count)}")
            return [(place, rows) for place, rows in map(json.loads, lines)]
        except (zstandard.ZstdError, ValueError, TypeError, NotFound) as error:
            logger.warning("%s: damaged (%s); its items are scored again", key, error)
            return None


def _lacks(rows: Rows) -> bool:
    return any(row["status"] == ItemStatus.INFRASTRUCTURE for row in rows)
