"""Rows that people look at: rewrites, trajectories, conversations. `<noun>-00000.jsonl.zst` … (one JSON object a line, one zstd frame a shard)
beside `<noun>.json`, which is written last and says what is in them:

    {"version": 1, "rows": n, "fates": {"kept": n, "<reason>": n}, "teacher": "llm" | "standin" | null, "shards": [{"name", "rows", "digest",
     "size_bytes"}], …}

Each row has an `id` that no other row of its noun has (reviews name rows by it) and a `fate`: "kept", or why it was not.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import zstandard

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.chat.provenance import Teacher, require_teacher
from abruzzi_jobs.chat.request import STANDIN_GENERATOR
from abruzzi_jobs.data.id_index import IdIndex, short
from abruzzi_jobs.data.processing.shard import KEPT, digest_of, read_verified, write_atomic
from abruzzi_jobs.data.text_shards import zstd_lines

SHARD_BYTES = 8 << 20
"""Of lines, before they are packed: a reader of one page unpacks no more than that."""
_LEVEL = 6
_OWN_KEYS = ("version", "rows", "fates", "shards")


class RowShardWriter:
    """Into a folder that is there. The bytes depend on the rows and their order only."""

    def __init__(self, folder: Path, noun: str, *, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder, self._noun, self._limit = folder, noun, shard_bytes
        self._lines: list[bytes] = []
        self._size = 0
        self._shards: list[dict[str, Any]] = []
        self._ids = IdIndex()
        self._teacher: Teacher | None = None
        self.fates: Counter[str] = Counter()

    def write(self, row: Mapping[str, Any]) -> None:
        """Raises ValueError for a row without id or fate, with an id that was there, or that is no JSON; AbruzziError `mixed_teachers` where
        the stand-in's rows meet those of a language model."""
        row_id, fate = row.get("id"), row.get("fate")
        if not (isinstance(row_id, str) and row_id and isinstance(fate, str) and fate):
            raise ValueError(f"a row of {self._noun} has no id or no fate: {row_id!r}, {fate!r}")
        self._check_teacher(row, row_id)
        text = json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        line = text.encode("utf-8", "replace") + b"\n"
        if not self._ids.add(short(row_id)):
            raise ValueError(f"two rows of {self._noun} have the id {row_id!r}")
        if self._lines and self._size + len(line) > self._limit:
            self._finish()
        self.fates[fate] += 1
        self._lines.append(line)
        self._size += len(line)

    def close(self, **described: Any) -> dict[str, Any]:
        """Writes `<noun>.json` with `described` in it, and returns what it says.

        Raises AbruzziError `mixed_teachers` where `described` claims another teacher than the rows'.
        """
        if clash := [key for key in _OWN_KEYS if key in described]:
            raise ValueError(f"{', '.join(clash)}: what the rows themselves say")
        teacher = self._teacher or described.get("teacher")
        if teacher != described.get("teacher", teacher):
            require_teacher(described["teacher"], is_llm=teacher == "llm", generator=f"{teacher}", where=self._noun)
        if self._lines:
            self._finish()
        manifest = {
            "version": 1,
            "rows": self.fates.total(),
            "fates": {KEPT: self.fates[KEPT], **dict(sorted(self.fates.items()))},
            "shards": self._shards,
            **described,
            "teacher": teacher,
        }
        content = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        write_atomic(self._folder / f"{self._noun}.json", content.encode("utf-8", "replace"))
        return manifest

    def _check_teacher(self, row: Mapping[str, Any], row_id: str) -> None:
        generator, is_llm = row.get("generator"), bool(row.get("is_llm"))
        if not is_llm and generator != STANDIN_GENERATOR:
            return  # of a person, a source, a rule: nobody's teacher
        self._teacher = self._teacher or ("llm" if is_llm else "standin")
        require_teacher(self._teacher, is_llm=is_llm, generator=str(generator), where=f"{self._noun}, row {row_id!r}")

    def _finish(self) -> None:
        name = f"{self._noun}-{len(self._shards):05d}.jsonl.zst"
        packed = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(b"".join(self._lines))
        write_atomic(self._folder / name, packed)
        self._shards.append(
            {"name": name, "rows": len(self._lines), "digest": digest_of(packed), "size_bytes": len(packed)}
        )
        self._lines, self._size = [], 0


def read_described(folder: Path, noun: str) -> dict[str, Any]:
    """`<noun>.json`. Raises AbruzziError bad_data where it is missing or says nothing of shards."""
    path = folder / f"{noun}.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(described["shards"], list):
            raise ValueError("shards is no list")
        return described
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AbruzziError(
            "bad_data", f"{path}: no description of {noun} ({error}).", hint=f"Give the stage an artifact with {noun}."
        ) from error


def read_rows(folder: Path, noun: str) -> Iterator[dict[str, Any]]:
    """In the order they were written. Raises AbruzziError bad_data where a shard is missing, cut short, changed or damaged."""
    for shard in read_described(folder, noun)["shards"]:
        packed = read_verified(folder / shard["name"], shard["digest"])
        try:
            for line in zstd_lines(io.BytesIO(packed)):
                yield json.loads(line)
        except (zstandard.ZstdError, ValueError) as error:
            raise AbruzziError(
                "bad_data", f"{folder / shard['name']}: damaged ({error}).", hint="Make the artifact again."
            ) from error
