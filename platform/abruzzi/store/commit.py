"""The commit protocol (design section 4.5): files by digest first, then `manifest.json`, created only if absent. That one write is the commit.

A reader trusts only a manifest whose every digest verifies. A crash before the last write leaves blobs that no manifest names.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from abruzzi.contracts.artifact import FileEntry, Manifest
from abruzzi.contracts.errors import AbruzziError, Conflict, NotFound
from abruzzi.contracts.stage import DirectoryStore as DirectoryConfig
from abruzzi.contracts.stage import StageSpec, StoreConfig
from abruzzi.contracts.states import ArtifactKind
from abruzzi.store.objects import DirectoryStore, ObjectStore
from abruzzi.store.s3 import S3Store

logger = logging.getLogger(__name__)

_CHUNK = 1 << 20


class CorruptArtifact(AbruzziError):
    """A file is gone or does not hash to what the manifest says."""

    def __init__(
        self,
        manifest: Manifest,
        path: str,
        found: str,
        *,
        hint: str = "The platform resumes from the newest one that verifies.",
    ) -> None:
        super().__init__(
            "corrupt_artifact",
            f"{manifest.kind} {manifest.name!r} of stage {manifest.stage_id!r} is damaged: {path} {found}.",
            hint=hint,
            status=409,
        )
        self.path = path


def open_store(config: StoreConfig) -> ObjectStore:
    return DirectoryStore(Path(config.root)) if isinstance(config, DirectoryConfig) else S3Store(config)


def manifest_key(output_prefix: str, epoch: int, name: str) -> str:
    return f"{output_prefix}e{epoch}/{name}/manifest.json"


def blob_key(output_prefix: str, digest: str) -> str:
    return f"{output_prefix}blobs/{digest.removeprefix('sha256:')}"


def prefix_of(key: str) -> str:
    """The stage's output prefix, from a manifest's key."""
    return key.rsplit("/", 3)[0] + "/"


def commit_artifact(
    store: ObjectStore,
    spec: StageSpec,
    *,
    kind: ArtifactKind,
    name: str,
    files: Mapping[str, Path],
    meta: Mapping[str, Any] | None = None,
    step: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[str, Manifest]:
    """(key, manifest) of the committed artifact. Committing the same files again is no error; other files under the same name are a Conflict.

    `progress` is called with (bytes hashed and stored, bytes to hash and to store), often.
    """
    total, done = 2 * sum(source.stat().st_size for source in files.values()), 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    entries = [store_file(store, spec.output_prefix, path, source, tell) for path, source in files.items()]
    return commit_entries(store, spec, kind=kind, name=name, entries=entries, meta=meta, step=step)


def store_file(
    store: ObjectStore, output_prefix: str, path: str, source: Path, tell: Callable[[int], None] = lambda _: None
) -> FileEntry:
    """The first half of a commit: a file of an artifact, below its digest, where no manifest names it yet. `tell` hears of bytes hashed and stored."""
    with source.open("rb") as file:
        digest = _digest(file, tell)
    entry = FileEntry(path=path, digest=digest, size_bytes=source.stat().st_size)
    if not _is_stored(store, output_prefix, entry):
        store.put(blob_key(output_prefix, digest), source)
    tell(entry.size_bytes)
    return entry


def store_content(store: ObjectStore, output_prefix: str, path: str, content: bytes | memoryview) -> FileEntry:
    """As `store_file`, from memory. Several processes may store files of one artifact, which one of them commits (`commit_entries`)."""
    with ThreadPoolExecutor(1) as hashing:  # which leaves the interpreter to others
        found = hashing.submit(lambda: FileEntry(path=path, digest=_digest_of(content), size_bytes=len(content)))
        if isinstance(store, DirectoryStore) or not _is_stored(store, output_prefix, found.result()):
            store.put_below(f"{output_prefix}blobs/", content, lambda: blob_key(output_prefix, found.result().digest))
        return found.result()


def commit_entries(
    store: ObjectStore,
    spec: StageSpec,
    *,
    kind: ArtifactKind,
    name: str,
    entries: Sequence[FileEntry],
    meta: Mapping[str, Any] | None = None,
    step: int | None = None,
) -> tuple[str, Manifest]:
    """The second half: one manifest of files that are stored, all of them. Conflict as in `commit_artifact`."""
    manifest = Manifest(
        kind=kind, name=name, project_id=spec.project_id, run_id=spec.run_id, stage_id=spec.stage_id, attempt_id=spec.attempt_id,
        epoch=spec.epoch, step=step, created_at=datetime.now(UTC), files=tuple(sorted(entries, key=lambda entry: entry.path)),
        parents=_parents(spec), meta=dict(meta or {}),
    )  # fmt: skip
    key = manifest_key(spec.output_prefix, spec.epoch, name)
    if store.put_if_absent(key, manifest.canonical_bytes()):
        return key, manifest
    committed = read_manifest(store, key)
    if committed.files != manifest.files:
        raise Conflict(f"{kind} {name!r} was already committed with other contents.", code="artifact_exists")
    return key, committed


def read_manifest(store: ObjectStore, key: str) -> Manifest:
    """Raises NotFound, or AbruzziError `corrupt_manifest`."""
    try:
        return Manifest.model_validate_json(store.get(key))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise AbruzziError(
            "corrupt_manifest",
            f"{key} is no manifest that this process can read: {where + ': ' if where else ''}{first['msg']}.",
            status=409,
            hint="If the stage that wrote it is of a newer version, update the platform; else make the artifact again.",
        ) from error


def verify_manifest(store: ObjectStore, manifest: Manifest, output_prefix: str) -> None:
    """Read every file and compare its digest. Raises CorruptArtifact."""
    for entry in manifest.files:
        try:
            with store.open(blob_key(output_prefix, entry.digest)) as stream:
                found = _digest(stream)
        except NotFound:
            raise CorruptArtifact(manifest, entry.path, "is gone") from None
        if found != entry.digest:
            raise CorruptArtifact(manifest, entry.path, "does not hash to its digest")


def list_manifests(
    store: ObjectStore, prefix: str, *, unreadable: Callable[[str, AbruzziError], None] | None = None
) -> Iterator[tuple[str, Manifest]]:
    """Committed and readable manifests below `prefix`, in the order of their keys. `unreadable` hears of the others: damaged ones, and those of a
    kind that this process does not know because it is older than the stage's image."""
    for key in store.list(prefix):
        if key.endswith("/manifest.json"):
            try:
                yield key, read_manifest(store, key)
            except AbruzziError as error:
                if error.code not in ("corrupt_manifest", "not_found"):
                    raise
                if error.code == "corrupt_manifest":
                    logger.warning("%s It is left out. %s", error.message, error.hint)
                    if unreadable is not None:
                        unreadable(key, error)


def missing_manifests(store: ObjectStore, keys: Collection[str]) -> set[str]:
    """Those of `keys` that are no longer there. One listing an epoch, however many there are."""
    epochs = {key.rsplit("/", 2)[0] + "/" for key in keys}
    return set(keys) - {key for epoch in epochs for key in store.list(epoch)}


def materialize(store: ObjectStore, manifest: Manifest, output_prefix: str, folder: Path) -> None:
    """The artifact's files below `folder`, verified. A directory store's files are hard-linked (they are never changed), others copied."""
    for entry in manifest.files:
        target = folder / entry.path
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.part")
        partial.unlink(missing_ok=True)
        _fetch(store, blob_key(output_prefix, entry.digest), partial, manifest, entry.path)
        with partial.open("rb") as file:
            if _digest(file) != entry.digest:
                partial.unlink()
                raise CorruptArtifact(manifest, entry.path, "does not hash to its digest")
        os.replace(partial, target)


def pin_artifact(store: ObjectStore, key: str, by: str) -> None:
    """Keep the artifact whose manifest is `key` from retention, for ever, in the name of run `by`. Raises NotFound when it is gone already.

    First the pin, then the look; a removal takes the manifest first and then looks for pins again, and puts it back: one of the two sees the other.
    """
    store.put(f"{_pins(key)}{by}", b"{}")
    if not store.exists(key):
        store.delete(f"{_pins(key)}{by}")
        raise NotFound("artifact", key, hint="Its retention was quicker. Choose a newer one.")


def is_pinned(store: ObjectStore, key: str) -> bool:
    return next(pins_of(store, key), None) is not None


def pins_of(store: ObjectStore, key: str) -> Iterator[str]:
    """Keys of the pins of the artifact whose manifest is `key`."""
    return iter(store.list(_pins(key)))


def remove_artifact(store: ObjectStore, key: str, manifest: Manifest) -> int:
    """Retention: the manifest first, so that nothing trusts what follows; then the blobs that no other manifest of the stage names. Returns bytes
    freed: none of an artifact that a branch stands on (`pin_artifact`), which stays."""
    if is_pinned(store, key):
        return 0
    prefix = prefix_of(key)
    store.delete(key)
    if is_pinned(store, key):
        store.put_if_absent(key, manifest.canonical_bytes())
        return 0
    kept = {entry.digest for _, other in list_manifests(store, prefix) for entry in other.files}
    freed = 0
    for entry in manifest.files:
        if entry.digest not in kept:
            store.delete(blob_key(prefix, entry.digest))
            freed += entry.size_bytes
    return freed


def check_free_space(path: Path, min_free_bytes: int, needed_bytes: int = 0) -> None:
    """Raises AbruzziError `disk_full` before the disk at `path` has less than `min_free_bytes` after writing `needed_bytes`."""
    free = shutil.disk_usage(path).free
    if free - needed_bytes < min_free_bytes:
        raise AbruzziError(
            "disk_full",
            f"The disk at {path} has {free / 2**30:.2f} GiB free; the next checkpoint needs {needed_bytes / 2**30:.2f} GiB and "
            f"{min_free_bytes / 2**30:.2f} GiB must stay free.",
            hint="Free some space, lower checkpoint.keep_last, or move ABRUZZI_HOME to a larger disk; then retry the run.",
        )


def _parents(spec: StageSpec) -> tuple[str, ...]:
    """What it was made from: the inputs, and the checkpoint that its attempt went on from."""
    references = [*spec.inputs.values(), *([spec.resume] if spec.resume else [])]
    return tuple(sorted({reference.digest for reference in references}))


def _pins(key: str) -> str:
    return key.removesuffix("manifest.json") + "pins/"


def _fetch(store: ObjectStore, key: str, target: Path, manifest: Manifest, path: str) -> None:
    try:
        if isinstance(store, DirectoryStore):
            try:
                os.link(store.path(key), target)
                return
            except FileNotFoundError:
                raise NotFound("object", key) from None
            except OSError:
                pass  # another file system, or links are not allowed: copy
        with store.open(key) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, _CHUNK)
    except NotFound:
        raise CorruptArtifact(manifest, path, "is gone") from None


def _is_stored(store: ObjectStore, output_prefix: str, entry: FileEntry) -> bool:
    """Its blob may have been damaged since: equal size is no proof, but a damaged one is found at reading and never silently used."""
    key = blob_key(output_prefix, entry.digest)
    return store.exists(key) and store.size(key) == entry.size_bytes


def _digest_of(content: bytes | memoryview) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _digest(stream: BinaryIO, tell: Callable[[int], None] = lambda _: None) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
        tell(len(chunk))
    return "sha256:" + digest.hexdigest()
