"""One shard's way through a function: read and verify, run, write beside, rename. Every executor does this and nothing else.

`<name>.json` is the commit marker: it is written last, and names the digest of each file. A shard is done when its manifest says
so for this function and these parents and its files still have their digests; whatever else lies there is made anew. Two
processes that make the same shard write the same bytes, so that neither needs to know of the other.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import zstandard

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.processing.function import FunctionSpec, Row
from abruzzi_jobs.data.text_shards import zstd_lines

EXAMPLES = 3
"""Rejected rows of each reason that a manifest shows."""
EXAMPLE_CHARACTERS = 300
KEPT = "kept"
_LEVEL = 6


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    name: str
    """Of the output."""
    parent: Path
    digest: str
    """sha256 of the parent's bytes: a shard that was cut short or changed is not read."""


@dataclass(frozen=True, kw_only=True)
class ShardManifest:
    name: str
    function: dict[str, Any]
    stage_hash: str
    parents: dict[str, str]
    """{name: sha256}"""
    files: dict[str, dict[str, Any]]
    """{name: {"bytes", "digest"}}; the shard itself and what is attached to it."""
    fates: dict[str, dict[str, int]]
    """{"kept" or a reason: {"documents", "bytes"}}; text bytes as they are kept, or as they were rejected."""
    notes: dict[str, int]
    examples: dict[str, list[dict[str, str]]]
    """{reason: the first rejected rows, their text cut}"""
    content_digest: str
    """Of the kept lines before compression."""
    version: int = 1

    @property
    def shard(self) -> str:
        return f"{self.name}.jsonl.zst"

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def process_shard(function: FunctionSpec, task: ShardTask, out: Path) -> ShardManifest:
    """The manifest of the finished shard in `out`; nothing is done where it is finished already.

    Raises AbruzziError bad_data where the parent is missing, cut short, changed, damaged or without a row.
    """
    done = finished(function, task, out)
    if done is not None:
        return done
    packed = read_verified(task.parent, task.digest)
    output = _ShardOutput()
    files = {name: read_verified(out / name, digest) for name, digest in function.files.items()}
    function.load(files)(_counted(read_rows(packed, task.parent.name), task.parent.name), output)
    contents = {f"{task.name}.jsonl.zst": output.close()}
    contents |= {f"{task.name}.{suffix}": content for suffix, content in sorted(output.attached.items())}
    for name, content in contents.items():
        write_atomic(out / name, content)
    manifest = ShardManifest(
        name=task.name,
        function=asdict(function),
        stage_hash=function.digest(),
        parents={task.parent.name: task.digest},
        files={n: {"bytes": len(c), "digest": digest_of(c)} for n, c in contents.items()},
        fates={fate: {"documents": d, "bytes": b} for fate, (d, b) in sorted(output.fates.items())},
        notes=dict(sorted(output.notes.items())),
        examples=dict(sorted(output.examples.items())),
        content_digest=output.content_digest,
    )
    write_atomic(out / f"{task.name}.json", manifest.to_json().encode())
    return manifest


def finished(function: FunctionSpec, task: ShardTask, out: Path) -> ShardManifest | None:
    """The manifest where this very work is done and whole."""
    try:
        manifest = ShardManifest(**json.loads((out / f"{task.name}.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    if manifest.stage_hash != function.digest() or manifest.parents != {task.parent.name: task.digest}:
        return None
    for name, entry in manifest.files.items():
        path = out / name
        if (
            not path.is_file()
            or path.stat().st_size != entry["bytes"]
            or digest_of(path.read_bytes()) != entry["digest"]
        ):
            return None
    return manifest


def write_rows(path: Path, rows: Iterator[Row]) -> tuple[str, int]:
    """Writes a shard at once; (sha256 of its bytes, rows)."""
    output = _ShardOutput()
    for row in rows:
        output.keep(row)
    content = output.close()
    write_atomic(path, content)
    return digest_of(content), output.fates[KEPT][0]


def read_verified(path: Path, digest: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise AbruzziError(
            "bad_data", f"{path}: the shard cannot be read ({error.strerror}).", hint="Make it again."
        ) from error
    if digest_of(content) != digest:
        raise AbruzziError(
            "bad_data",
            f"{path}: cut short or changed: its {len(content)} bytes do not have the digest {digest[:19]}… of its manifest.",
            hint="Remove the file and make or fetch it again; nothing was read from it.",
        )
    return content


def read_rows(packed: bytes, name: str) -> Iterator[Row]:
    number = 0
    try:
        for line in zstd_lines(io.BytesIO(packed)):
            row = json.loads(line)
            if not isinstance(row, dict) or not isinstance(row.get("text"), str):
                raise ValueError("no object with a text")
            number += 1
            yield cast(Row, row)
    except (zstandard.ZstdError, ValueError) as error:
        raise AbruzziError(
            "bad_data", f"{name}:{number + 1}: damaged ({error}).", hint="Make or fetch the shard again."
        ) from error


def write_atomic(path: Path, content: bytes) -> None:
    """All of it or nothing, and on the disk before it has its name."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


class _ShardOutput:
    """An Output in memory: a shard is small beside a machine."""

    def __init__(self) -> None:
        self.fates: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        self.notes: dict[str, int] = defaultdict(int)
        self.examples: dict[str, list[dict[str, str]]] = defaultdict(list)
        self.attached: dict[str, bytes] = {}
        self.content_digest = ""
        self._packed = io.BytesIO()
        self._writer = zstandard.ZstdCompressor(level=_LEVEL).stream_writer(self._packed, closefd=False)
        self._lines = hashlib.sha256()

    def keep(self, row: Row) -> None:
        self._count(KEPT, row)
        line = json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
        self._writer.write(line)
        self._lines.update(line)

    def reject(self, row: Row, reason: str) -> None:
        self._count(reason, row)
        if len(self.examples[reason]) < EXAMPLES:
            text = row["text"].encode("utf-8", "replace").decode()
            shown = text if len(text) <= EXAMPLE_CHARACTERS else text[:EXAMPLE_CHARACTERS] + "…"
            # In the order in which it is read back: what is made of manifests is the same whether they were just made or found.
            self.examples[reason].append(
                {"name": str(row.get("name", "")), "source": str(row.get("source", "")), "text": shown}
            )

    def note(self, name: str, amount: int = 1) -> None:
        self.notes[name] += amount

    def attach(self, suffix: str, content: bytes) -> None:
        self.attached[suffix] = content

    def close(self) -> bytes:
        self._writer.close()
        self.content_digest = "sha256:" + self._lines.hexdigest()
        return self._packed.getvalue()

    def _count(self, fate: str, row: Row) -> None:
        entry = self.fates[fate]
        entry[0] += 1
        entry[1] += len(row["text"].encode("utf-8", "replace"))


def _counted(rows: Iterator[Row], name: str) -> Iterator[Row]:
    found = False
    for row in rows:
        found = True
        yield row
    if not found:
        raise AbruzziError("bad_data", f"{name}: the shard has no row.", hint="Leave it out, or make it again.")
