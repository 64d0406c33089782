"""Rows of an artifact, a page at a time: files `<noun>-00000.jsonl.zst` … (or `<noun>.jsonl.zst`, or not packed), one JSON object a line.

Stages wrote them, any image may be a stage: nothing in them is trusted. A line, a shard and what one page looks at are bounded, so that
memory and time are, and files are found in the manifest only. A blob's digest is checked when this process meets it first; blobs never
change, and what is damaged later has another size, or breaks the frame's checksum or the JSON. All of it blocks: for threads.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, NoReturn

import zstandard

from abruzzi.artifacts.row_filter import RowFilter
from abruzzi.contracts.artifact import FileEntry, Manifest
from abruzzi.contracts.errors import AbruzziError, NotFound
from abruzzi.store import CorruptArtifact, ObjectStore, blob_key

SCAN_BYTES = 16 << 20
"""Of unpacked lines that one page looks at."""
PAGE_BYTES = 4 << 20
"""Of lines that one page holds, unless its first is longer."""
LINE_BYTES = 4 << 20
SHARD_BYTES = 1 << 30
"""Unpacked. Larger ones are for programs to read."""
_CHUNK = 1 << 20
_WINDOW = 1 << 27
_REMEMBERED = 4096
_SHARD = re.compile(r"(?P<noun>[a-z][a-z0-9_]*)(?:-(?P<number>\d{1,9}))?\.jsonl(?P<packed>\.zst)?")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line begins: the shard's number in the list, and bytes of its lines before it."""

    shard: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    place: Place
    content: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    found: list[Row]
    next: Place | None
    scanned: int


def nouns(manifest: Manifest) -> dict[str, int]:
    """{noun that the artifact has rows of: bytes of its files}."""
    found: dict[str, int] = {}
    for entry in manifest.files:
        if match := _SHARD.fullmatch(entry.path):
            found[match["noun"]] = found.get(match["noun"], 0) + entry.size_bytes
    return dict(sorted(found.items()))


def read_rows(
    objects: ObjectStore,
    manifest: Manifest,
    prefix: str,
    noun: str,
    *,
    start: Place,
    limit: int,
    matching: RowFilter,
    scan_bytes: int = SCAN_BYTES,
) -> Rows:
    """Rows from `start` on that match, in the order they were written, until there are `limit` or the page's bounds are met.

    Raises NotFound for a noun that the artifact does not have, CorruptArtifact, and AbruzziError `bad_cursor` or `too_large`.
    """
    shards = _shards(manifest, noun)
    if start.shard > len(shards):
        raise _bad_cursor()
    found: list[Row] = []
    seen = held = scanned = 0
    for number in range(start.shard, len(shards)):
        reader = Shard(objects, manifest, prefix, shards[number])
        for offset, line in reader.lines(start.offset if number == start.shard else 0):
            place = Place(number, offset)
            if len(found) >= limit or seen >= scan_bytes or held >= PAGE_BYTES:
                return Rows(found, place, scanned)
            seen += len(line)
            scanned += 1
            row = matching.read(line, partial(reader.no_row, offset))
            if row is not None:
                found.append(Row(place, row))
                held += len(line)
    return Rows(found, None, scanned)


class Shard:
    def __init__(self, objects: ObjectStore, manifest: Manifest, prefix: str, entry: FileEntry) -> None:
        self._objects, self._manifest, self._entry = objects, manifest, entry
        self._key = blob_key(prefix, entry.digest)

    def lines(self, start: int) -> Iterator[tuple[int, bytes]]:
        """(bytes before it, line without its end) from `start` on, which is where a line begins."""
        try:
            with self._objects.open(self.checked()) as blob:
                yield from self._lines(self._unpacked(blob), start)
        except zstandard.ZstdError as error:
            self.damaged(f"cannot be unpacked: {error}")

    def checked(self) -> str:
        """The blob's key. Raises CorruptArtifact where it is not what the manifest says."""
        try:
            if self._objects.size(self._key) != self._entry.size_bytes:
                self.damaged("has another size than its manifest says")
            if not _VERIFIED.has(self._key):
                with self._objects.open(self._key) as blob:
                    digest = hashlib.sha256()
                    while chunk := blob.read(_CHUNK):
                        digest.update(chunk)
                if f"sha256:{digest.hexdigest()}" != self._entry.digest:
                    self.damaged("does not hash to its digest")
                _VERIFIED.add(self._key)
        except NotFound:
            self.damaged("is gone")
        return self._key

    def no_row(self, offset: int, why: str) -> NoReturn:
        self.damaged(f"has no row at byte {offset} ({why})")

    def damaged(self, found: str) -> NoReturn:
        hint = f"Make it again: `abruzzi runs retry {self._manifest.run_id} --stage {self._manifest.stage_id}`."
        raise CorruptArtifact(self._manifest, self._entry.path, found, hint=hint)

    def _unpacked(self, blob: BinaryIO) -> BinaryIO:
        if not self._entry.path.endswith(".zst"):
            return blob
        return io.BufferedReader(
            zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(blob, read_across_frames=True), _CHUNK
        )  # type: ignore[type-var]

    def _lines(self, stream: BinaryIO, start: int) -> Iterator[tuple[int, bytes]]:
        position = 0
        if start > 0:
            position, last = self._skip(stream, start)
            if position < start or last != b"\n":
                raise _bad_cursor()
        while line := stream.readline(LINE_BYTES + 1):
            if len(line) > LINE_BYTES or position > SHARD_BYTES:
                self._refuse(
                    "has a line of more than 4 MiB" if len(line) > LINE_BYTES else "unpacks to more than 1 GiB"
                )
            if content := line.rstrip(b"\n"):
                yield position, content
            position += len(line)

    def _skip(self, stream: BinaryIO, count: int) -> tuple[int, bytes]:
        """(bytes passed over, the last of them)."""
        if count > SHARD_BYTES:
            raise _bad_cursor()
        passed, chunk = 0, b""
        while passed < count and (read := stream.read(min(_CHUNK, count - passed))):
            passed, chunk = passed + len(read), read
        return passed, chunk[-1:]

    def _refuse(self, what: str) -> NoReturn:
        raise too_large(self._manifest, f"{self._entry.path} {what}")


class _Verified:
    """Keys of blobs whose digest was checked by this process, the newest few thousand."""

    def __init__(self) -> None:
        self._keys: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def has(self, key: str) -> bool:
        with self._lock:
            return key in self._keys

    def add(self, key: str) -> None:
        with self._lock:
            self._keys[key] = None
            while len(self._keys) > _REMEMBERED:
                self._keys.popitem(last=False)


_VERIFIED = _Verified()


def _shards(manifest: Manifest, noun: str) -> Sequence[FileEntry]:
    found = [
        (int(match["number"] or 0), entry)
        for entry in manifest.files
        if (match := _SHARD.fullmatch(entry.path)) and match["noun"] == noun
    ]
    if not found:
        raise NotFound("noun", noun, hint=f"It has: {', '.join(list(nouns(manifest))[:20]) or 'none'}.")
    return [entry for _, entry in sorted(found, key=lambda pair: (pair[0], pair[1].path))]


def too_large(manifest: Manifest, what: str) -> AbruzziError:
    hint = f"Take it away and look there: `abruzzi artifacts list {manifest.run_id} --stage {manifest.stage_id}`, then `abruzzi artifacts pull`."
    return AbruzziError(
        "too_large", f"{manifest.kind} {manifest.name!r}: {what}: too much to show.", status=422, hint=hint
    )


def _bad_cursor() -> AbruzziError:
    hint = "Use `next_cursor` of the page before, or a row's `position`, or leave it out."
    return AbruzziError("bad_cursor", "The cursor is no place in these rows.", status=422, hint=hint)
