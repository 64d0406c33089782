"""Text shards: one JSON document a line, {"id", "text", "source", "domain", "name"}, compressed with zstd."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from abruzzi.contracts.errors import AbruzziError

CORPUS_FILE = "corpus.json"
SHARD_TEXT_BYTES = 64 << 20
_READ_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class TextRecord:
    id: str
    text: str
    source: str
    domain: str
    name: str = ""


class TextShardWriter:
    """Writes `<split>-00000.jsonl.zst` …; `close()` gives what corpus.json says of them. The bytes depend on the records only."""

    def __init__(self, directory: Path, split: str, *, shard_text_bytes: int = SHARD_TEXT_BYTES) -> None:
        self._directory = directory
        self._split = split
        self._limit = shard_text_bytes
        self._shards: list[dict[str, Any]] = []
        self._out: Any = None
        self._lines = hashlib.sha256()
        self._documents = self._text_bytes = 0

    def write(self, record: TextRecord) -> None:
        if self._out is not None and self._text_bytes >= self._limit:
            self._finish()
        if self._out is None:
            path = self._directory / self._name
            self._out = zstandard.ZstdCompressor(level=6).stream_writer(path.open("wb"), closefd=True)
        line = (json.dumps(record.__dict__, ensure_ascii=False, separators=(",", ":")) + "\n").encode(
            "utf-8", "replace"
        )
        self._out.write(line)
        self._lines.update(line)
        self._documents += 1
        self._text_bytes += len(record.text.encode("utf-8", "replace"))

    def close(self) -> list[dict[str, Any]]:
        if self._out is not None:
            self._finish()
        return self._shards

    @property
    def _name(self) -> str:
        return f"{self._split}-{len(self._shards):05d}.jsonl.zst"

    def _finish(self) -> None:
        self._out.close()
        packed = (self._directory / self._name).read_bytes()
        self._shards.append(
            {
                "name": self._name,
                "split": self._split,
                "documents": self._documents,
                "text_bytes": self._text_bytes,
                "digest": "sha256:" + hashlib.sha256(packed).hexdigest(),
                "content_digest": "sha256:" + self._lines.hexdigest(),
            }
        )
        self._out, self._lines = None, hashlib.sha256()
        self._documents = self._text_bytes = 0


def read_corpus(directory: Path) -> dict[str, Any]:
    """corpus.json. Raises AbruzziError bad_data when it is missing or no JSON object with shards."""
    path = directory / CORPUS_FILE
    try:
        corpus = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(corpus["shards"], list):
            raise ValueError("shards is no list")
        return corpus
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AbruzziError(
            "bad_data",
            f"{path}: not a corpus's description ({error}).",
            hint="Give the stage the `corpus` output of a corpus stage.",
        ) from error


def read_split(directory: Path, split: str) -> Iterator[TextRecord]:
    """Documents in the order of the shards. Raises AbruzziError bad_data where a shard is damaged."""
    for shard in shards_of(directory, split):
        yield from read_text_shard(shard)


def shards_of(directory: Path, split: str) -> list[Path]:
    """In their order."""
    return [directory / shard["name"] for shard in read_corpus(directory)["shards"] if shard["split"] == split]


def zstd_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines of all frames, without their ends. Raises ZstdError where the stream breaks off, which `stream_reader` passes over."""
    rest = packed = b""
    frame = zstandard.ZstdDecompressor().decompressobj()
    started = False
    while packed or (packed := stream.read(_READ_BYTES)):
        started = True
        *lines, rest = (rest + frame.decompress(packed)).split(b"\n")
        packed = frame.unused_data if frame.eof else b""
        if frame.eof and (packed or (packed := stream.read(_READ_BYTES))):
            frame = zstandard.ZstdDecompressor().decompressobj()
        yield from lines
    if started and not frame.eof:
        raise zstandard.ZstdError("the stream breaks off")
    if rest:
        yield rest


def read_text_shard(path: Path) -> Iterator[TextRecord]:
    try:
        with path.open("rb") as packed:
            yield from read_packed(packed, path.name)
    except OSError as error:
        raise _damaged(path.name, 0, error) from error


def read_packed(packed: BinaryIO, name: str) -> Iterator[TextRecord]:
    """Documents of a shard that is called `name`. Raises AbruzziError bad_data where it is damaged."""
    number = 0
    try:
        for line in zstd_lines(packed):
            yield TextRecord(**json.loads(line))
            number += 1
    except (OSError, zstandard.ZstdError, ValueError, TypeError) as error:
        raise _damaged(name, number, error) from error


def _damaged(name: str, number: int, error: Exception) -> AbruzziError:
    return AbruzziError("bad_data", f"{name}:{number + 1}: damaged ({error}).", hint="Fetch or make the corpus again.")
