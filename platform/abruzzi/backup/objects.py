"""The objects that a snapshot's rows name: manifests with their files, pins, log chunks. Immutable, so copying them after the snapshot is safe.

Two things may go meanwhile. A small log chunk is replaced by a longer one that begins with the same bytes: the part that the snapshot knows is cut
out of it. An artifact that retention or its own running stage removes is left out, and restored as deleted. What is known to be damaged is left out.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import psycopg
from pydantic import BaseModel, ConfigDict

from abruzzi.contracts.errors import AbruzziError, NotFound
from abruzzi.kit.db import connect_arguments
from abruzzi.store import ObjectStore, blob_key, pins_of, prefix_of, read_manifest

_CHUNK = 1 << 20
_AT_ONCE = 8
_SINGLE_PUT_BYTES = 4 << 30
"""Above it S3 takes an object in parts only, and those have no If-None-Match."""


class ObjectFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Named:
    """What the snapshot's rows name."""

    artifacts: tuple[str, ...]
    """Keys of manifests."""
    logs: tuple[tuple[str, int, int, int, str], ...]
    """Attempt, rank, first byte, end, key."""


@dataclass(frozen=True, slots=True)
class Copied:
    files: tuple[ObjectFile, ...]
    gone: tuple[str, ...]
    """Manifests that were removed while the backup was made, or by a stage that runs."""
    damaged: tuple[str, ...]
    """Sentences about objects that were gone or damaged in the store itself."""


def named(connection: psycopg.Connection) -> Named:
    artifacts = connection.execute(
        "SELECT manifest_key FROM artifacts WHERE deleted_at IS NULL AND corrupt_at IS NULL ORDER BY manifest_key"
    )
    logs = connection.execute(
        "SELECT attempt_id, rank, start_offset, end_offset, object_key FROM log_chunks ORDER BY object_key"
    )
    return Named(tuple(key for (key,) in artifacts), tuple(tuple(row) for row in logs))


def copy(what: Named, source: ObjectStore, target: ObjectStore, owner_url: str) -> Copied:
    files: dict[str, ObjectFile] = {}
    missing: dict[str, str] = {}  # manifest: what of it could not be had
    naming: dict[tuple[str, str], list[str]] = {}  # (blob, digest): manifests
    for key in what.artifacts:
        try:
            manifest = read_manifest(source, key)
        except AbruzziError as error:
            if error.code not in ("not_found", "corrupt_manifest"):
                raise
            missing[key] = error.message
            continue
        for small in (key, *pins_of(source, key)):
            files[small] = _copy(source, small, target)
        for entry in manifest.files:
            naming.setdefault((blob_key(prefix_of(key), entry.digest), entry.digest), []).append(key)
    damaged: list[str] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for (blob, digest), outcome in zip(
            naming, pool.map(lambda item: _copy_blob(source, item[0], item[1], target), naming), strict=True
        ):
            if isinstance(outcome, ObjectFile):
                files[blob] = outcome
            else:
                missing |= dict.fromkeys(naming[blob, digest], outcome)
        for outcome in pool.map(lambda row: _copy_log(source, row, target, owner_url), what.logs):
            if isinstance(outcome, ObjectFile):
                files[outcome.key] = outcome
            else:
                damaged.append(outcome)
    gone = [key for key in missing if _is_deleted(owner_url, key)]
    damaged += [f"{key}: {sentence}" for key, sentence in missing.items() if key not in gone]
    return Copied(tuple(file for key, file in files.items() if key not in gone), tuple(gone), tuple(damaged))


def verify(store: ObjectStore, files: Iterable[ObjectFile]) -> Iterator[str]:
    """A sentence for each object that is not what the backup says."""

    def look(file: ObjectFile) -> str | None:
        try:
            with store.open(file.key) as stream:
                found = _digest(stream)
        except NotFound:
            return f"{file.key} is gone"
        return None if found == (file.size, file.sha256) else f"{file.key} is not what was written"

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from (sentence for sentence in pool.map(look, files) if sentence)


def restore(backup: ObjectStore, files: Iterable[ObjectFile], target: ObjectStore) -> None:
    """Raises AbruzziError `not_empty` where the store has another object under the same name."""

    def put(file: ObjectFile) -> None:
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / "object"
            with backup.open(file.key) as stream:
                _write(stream, local)
            if file.size > _SINGLE_PUT_BYTES and not target.exists(file.key):
                target.put(file.key, local)
                return
            if file.size <= _SINGLE_PUT_BYTES and target.put_if_absent(file.key, local):
                return
        with target.open(file.key) as stream:
            if _digest(stream) != (file.size, file.sha256):
                raise AbruzziError(
                    "not_empty",
                    f"The object store has another {file.key}.",
                    status=409,
                    hint="Restore into an empty bucket or directory.",
                )

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(put, files):
            pass


def _copy(source: ObjectStore, key: str, target: ObjectStore) -> ObjectFile:
    """Small ones."""
    content = source.get(key)
    target.put(key, content)
    return ObjectFile(key=key, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def _copy_blob(source: ObjectStore, key: str, digest: str, target: ObjectStore) -> ObjectFile | str:
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "blob"
        try:
            with source.open(key) as stream:
                size, found = _write(stream, local)
        except NotFound:
            return f"{key} is gone"
        if f"sha256:{found}" != digest:
            return f"{key} does not hash to its name"
        target.put(key, local)
    return ObjectFile(key=key, size=size, sha256=found)


def _copy_log(
    source: ObjectStore, row: tuple[str, int, int, int, str], target: ObjectStore, owner_url: str
) -> ObjectFile | str:
    attempt_id, rank, start, end, key = row
    gone: set[str] = set()
    now = key
    while True:
        try:
            content = source.get(now)[: end - start]
            break
        except NotFound:
            gone.add(now)
            later = _log_key(owner_url, attempt_id, rank, start)
            if later is None or later in gone:
                return f"{key} is gone"
            now = later
    target.put(key, content)
    return ObjectFile(key=key, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def _log_key(owner_url: str, attempt_id: str, rank: int, start: int) -> str | None:
    """Where a chunk lies now."""
    with psycopg.connect(**connect_arguments(owner_url)) as connection:
        row = connection.execute(
            "SELECT object_key FROM log_chunks WHERE attempt_id = %s AND rank = %s AND start_offset = %s",
            [attempt_id, rank, start],
        ).fetchone()
    return row[0] if row else None


def _is_deleted(owner_url: str, manifest_key: str) -> bool:
    """By retention, or by its stage, which removes old checkpoints and tells it at its end."""
    with psycopg.connect(**connect_arguments(owner_url)) as connection:
        query = """SELECT 1 FROM artifacts a JOIN stages s ON s.run_id = a.run_id AND s.id = a.stage_id
                   WHERE a.manifest_key = %s AND (a.deleted_at IS NOT NULL OR s.ended_at IS NULL)"""
        return connection.execute(query, [manifest_key]).fetchone() is not None


def _write(stream: BinaryIO, path: Path) -> tuple[int, str]:
    """(size, sha256)"""
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
    return size, digest.hexdigest()


def _digest(stream: BinaryIO) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return size, digest.hexdigest()
