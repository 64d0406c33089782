"""The log of calls: a record of each, and therefore also the cache of answers.

Records are written in segments (`<writer>-000000.jsonl.zst`), each one atomic object, a second's calls or a few hundred at a time. An attempt
reads what earlier ones have left, so no question is asked twice; after kill -9 at most the last second's answers are asked for again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import logging
from collections import Counter, OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zstandard

from abruzzi.contracts.errors import AbruzziError
from abruzzi.store import ObjectStore
from abruzzi_jobs.chat.ledger import Account
from abruzzi_jobs.chat.provenance import Teacher, require_teacher
from abruzzi_jobs.data.id_index import IdIndex
from abruzzi_jobs.data.text_shards import zstd_lines

CALLS_FILE = "calls.json"
SHARD_BYTES = 64 << 20
"""Of lines, before they are packed."""
_FLUSH_SECONDS = 1.0
_FLUSH_RECORDS = 500
_SEGMENTS_IN_MEMORY = 8

logger = logging.getLogger(__name__)


class CallLog:
    """Below `prefix` (which ends with /) of an object store. One process writes as `writer` and `rank`; any may read. For one event loop."""

    def __init__(
        self, store: ObjectStore, prefix: str, *, writer: str, rank: int = 0, flush_seconds: float = _FLUSH_SECONDS
    ) -> None:
        self._store, self._prefix, self._writer, self._rank = store, prefix, f"{writer}-r{rank}", f"-r{rank}-"
        self._flush_seconds = flush_seconds
        self._segments: list[str] = []
        self._index = IdIndex()
        """Id → (segment, line) of an answer in the store."""
        self._pending: list[bytes] = []
        self._fresh: dict[bytes, bytes] = {}
        """Id → line of an answer that is not in the store yet."""
        self._parsed: OrderedDict[int, asyncio.Task[list[bytes]]] = OrderedDict()
        """Segment → its lines, the last used last. Many may wait for the same one."""
        self._number = 0
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self.accounts: dict[str, Account] = {}
        """What earlier attempts of this rank spent, by role."""

    async def open(self) -> None:
        """Reads what is there. Segments that are damaged are passed over: their questions are asked again."""
        await asyncio.to_thread(self._read_all)
        self._task = asyncio.create_task(self._flush_often())

    async def close(self) -> None:
        """Writes what is left. Raises what has kept it from being written."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self.flush()

    async def find(self, call_id: str) -> dict[str, Any] | None:
        """The response of a record, or None."""
        key = bytes.fromhex(call_id)
        line = self._fresh.get(key)
        if line is None:
            place = self._index.find(key)
            if place is None:
                return None
            segment, number = place
            line = (await self._parsed_segment(segment))[number]
        return json.loads(line)["response"]

    def add(self, call_id: str, line: bytes, *, is_answer: bool) -> None:
        """A record: one JSON object without its line's end. Raises what has kept earlier ones from being written."""
        if self._failure is not None:
            raise self._failure
        self._pending.append(line)
        if is_answer:
            self._fresh[bytes.fromhex(call_id)] = line
        if len(self._pending) >= _FLUSH_RECORDS:
            self._wake.set()

    async def flush(self) -> None:
        """Returns when everything that was added is in the store."""
        async with self._writing:
            lines, fresh = self._pending, self._fresh
            if not lines:
                return
            self._pending = []
            try:
                key = await asyncio.to_thread(self._put, lines)
            except BaseException:
                self._pending = lines + self._pending
                raise
            segment = len(self._segments)
            self._segments.append(key)
            places = {line: number for number, line in enumerate(lines)}
            for call_id, line in list(fresh.items()):
                if line in places:
                    self._index.add(call_id, (segment, places[line]))
                    del self._fresh[call_id]

    def records(self) -> Iterator[bytes]:
        """Lines of all segments, of all attempts and writers; an answer that two of them asked for, once."""
        seen = IdIndex()
        for key in sorted(k for k in self._store.list(self._prefix) if k.endswith(".jsonl.zst")):
            for line in self._lines_or_nothing(key):
                record = json.loads(line)
                call_id = bytes.fromhex(record["id"])
                if "response" in record and not seen.add(call_id):
                    continue
                yield line

    def write(self, folder: Path) -> dict[str, Any]:
        """All records as `calls-00000.jsonl.zst` …, and calls.json, which it returns: what is kept with an artifact. Blocking.

        Raises AbruzziError `mixed_teachers` where one role was played by a model and by the stand-in.
        """
        shards: list[dict[str, Any]] = []
        summary = _Summary()
        lines = self.records()
        while (first := next(lines, None)) is not None:
            shards.append(_write_shard(folder, len(shards), first, lines, summary))
        described = {"version": 1, "shards": shards, "roles": summary.roles()}
        (folder / CALLS_FILE).write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return described

    def discard(self) -> None:
        """Removes the segments: once the records are committed with an artifact. Blocking."""
        for key in list(self._store.list(self._prefix)):
            self._store.delete(key)

    async def _parsed_segment(self, segment: int) -> list[bytes]:
        task = self._parsed.get(segment)
        if task is None or (task.done() and task.exception() is not None):
            task = asyncio.create_task(asyncio.to_thread(self._lines, self._segments[segment]))
            self._parsed[segment] = task
            if len(self._parsed) > _SEGMENTS_IN_MEMORY:
                self._parsed.popitem(last=False)
        self._parsed.move_to_end(segment)
        return await asyncio.shield(task)

    async def _flush_often(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._flush_seconds)
            self._wake.clear()
            try:
                await asyncio.shield(self.flush())
            except Exception as error:
                self._failure = error
                return

    def _put(self, lines: list[bytes]) -> str:
        packed = pack(lines)
        while True:  # a rank that was started again finds its own earlier segments
            key = f"{self._prefix}{self._writer}-{self._number:06d}.jsonl.zst"
            self._number += 1
            if self._store.put_if_absent(key, packed):
                return key

    def _read_all(self) -> None:
        for key in self._store.list(self._prefix):
            if not key.endswith(".jsonl.zst"):
                continue
            segment = len(self._segments)
            self._segments.append(key)
            for number, line in enumerate(self._lines_or_nothing(key)):
                record = json.loads(line)
                if "response" in record:
                    self._index.add(bytes.fromhex(record["id"]), (segment, number))
                if self._rank in key.rsplit("/", 1)[-1]:
                    self.accounts.setdefault(record["role"], Account()).restore(record)

    def _lines(self, key: str) -> list[bytes]:
        return list(zstd_lines(io.BytesIO(self._store.get(key))))

    def _lines_or_nothing(self, key: str) -> list[bytes]:
        try:
            lines = self._lines(key)
            json.loads(lines[-1])
            return lines
        except (zstandard.ZstdError, ValueError, IndexError, AbruzziError) as error:
            logger.warning("%s: damaged (%s); what it held is asked for again", key, error)
            return []


class _Summary:
    """Of records: by role, who answered and what it cost."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._generators: dict[str, Counter[str]] = {}
        self._teachers: dict[str, Teacher] = {}

    def take(self, record: dict[str, Any]) -> None:
        role = record["role"]
        self._accounts.setdefault(role, Account()).restore(record)
        response = record.get("response")
        if response is None:
            return
        generator, is_llm = response["generator"], response["is_llm"]
        teacher = self._teachers.setdefault(role, "llm" if is_llm else "standin")
        require_teacher(teacher, is_llm=is_llm, generator=generator, where=f"calls of role {role!r}")
        self._generators.setdefault(role, Counter())[generator] += 1

    def roles(self) -> dict[str, Any]:
        return {
            role: {
                "teacher": self._teachers.get(role),
                "generators": dict(sorted(self._generators.get(role, {}).items())),
                **account.as_dict(),
            }
            for role, account in sorted(self._accounts.items())
        }


def _write_shard(folder: Path, number: int, first: bytes, lines: Iterator[bytes], summary: _Summary) -> dict[str, Any]:
    """As many of `lines` as belong into one, a line at a time."""
    name, digest, records, size = f"calls-{number:05d}.jsonl.zst", hashlib.sha256(), 0, 0
    compressor = zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
    with (folder / name).open("wb") as file:
        line: bytes | None = first
        while line is not None:
            summary.take(json.loads(line))
            records, size = records + 1, size + len(line)
            packed = compressor.compress(line + b"\n")
            digest.update(packed)
            file.write(packed)
            line = next(lines, None) if size < SHARD_BYTES else None
        packed = compressor.flush()
        digest.update(packed)
        file.write(packed)
        length = file.tell()
    return {"name": name, "records": records, "digest": f"sha256:{digest.hexdigest()}", "size_bytes": length}


def pack(lines: list[bytes]) -> bytes:
    """One frame with a checksum, lines with their ends."""
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(b"\n".join(lines) + b"\n")
