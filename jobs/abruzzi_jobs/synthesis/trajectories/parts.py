"""What a stage has finished, kept in the object store while it goes on: parts of a few rows, each one atomic object under its plan's digest.

So a next attempt, or one whose machine was lost, plays what is missing and nothing else; what was planned otherwise is not taken for it.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import zstandard

from abruzzi.contracts.errors import AbruzziError
from abruzzi.store import ObjectStore
from abruzzi_jobs.chat.calls import pack
from abruzzi_jobs.data.text_shards import zstd_lines
from abruzzi_jobs.synthesis.trajectories.plan import Planned

PARTS_FOLDER = "parts/"
"""Below the stage's output prefix."""
Row = dict[str, Any]

logger = logging.getLogger(__name__)


class Parts:
    """Of `work`, in parts of `rows_each`. Blocking."""

    def __init__(
        self, store: ObjectStore, prefix: str, work: Sequence[Planned], rows_each: int, *, settings: str
    ) -> None:
        told = [settings, *(f"{p.id} {p.task.model_dump_json()} {p.agent.model_dump_json()}" for p in work)]
        self._store = store
        self._folder = f"{prefix}{PARTS_FOLDER}{hashlib.sha256(chr(10).join(told).encode()).hexdigest()[:16]}/"
        self._prefix = f"{prefix}{PARTS_FOLDER}"
        self._parts = [list(work[start : start + rows_each]) for start in range(0, len(work), rows_each)]
        self._waiting: dict[int, dict[str, Row]] = {}
        self._of = {planned.id: number for number, part in enumerate(self._parts) for planned in part}

    def missing(self) -> list[list[Planned]]:
        """Parts that are still to be played; those that are damaged are removed and played again."""
        missing = []
        for number, part in enumerate(self._parts):
            key = self._key(number)
            if self._store.exists(key):
                if self._read(number) is not None:
                    continue
                self._store.delete(key)
            missing.append(part)
        return missing

    def take(self, row: Row) -> int | None:
        """A finished row. The number of its part, where it was the last one missing of it: then `commit` it."""
        number = self._of[row["id"]]
        waiting = self._waiting.setdefault(number, {})
        waiting[row["id"]] = row
        return number if len(waiting) == len(self._parts[number]) else None

    def commit(self, number: int) -> None:
        """Writes a whole part. Another attempt's, if it was first, stays."""
        rows = self._waiting.pop(number)
        lines = [
            json.dumps(rows[planned.id], ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(
                "utf-8", "replace"
            )
            for planned in self._parts[number]
        ]
        self._store.put_if_absent(self._key(number), pack([_manifest(lines), *lines]))

    def rows(self) -> Iterator[Row]:
        """All, in the order of the plan. Raises AbruzziError where a part is missing."""
        for number in range(len(self._parts)):
            rows = self._read(number)
            if rows is None:
                raise AbruzziError(
                    "bad_data", f"{self._key(number)}: damaged.", status=503, hint="Run the stage again."
                )
            yield from rows

    def discard(self) -> None:
        """Once the rows are committed as an artifact."""
        for key in list(self._store.list(self._prefix)):
            self._store.delete(key)

    def _key(self, number: int) -> str:
        return f"{self._folder}part-{number:05d}.jsonl.zst"

    def _read(self, number: int) -> list[Row] | None:
        try:
            manifest, *lines = zstd_lines(io.BytesIO(self._store.get(self._key(number))))
            if manifest != _manifest(lines) or len(lines) != len(self._parts[number]):
                raise ValueError("it is not what its manifest says")
            return [json.loads(line) for line in lines]
        except (zstandard.ZstdError, ValueError, AbruzziError) as error:
            logger.warning("%s: damaged (%s); its conversations are played again", self._key(number), error)
            return None


def _manifest(lines: Sequence[bytes]) -> bytes:
    digest = "sha256:" + hashlib.sha256(b"\n".join(lines)).hexdigest()
    return json.dumps({"version": 1, "rows": len(lines), "digest": digest}).encode()
