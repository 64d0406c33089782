"""One folder a backup. What `backup.json` describes is whole: it is written last.

    backup.json         revision of the schema, when, rows and digests by table, what could not be had
    objects.jsonl       key, size and digest of each object
    tables/             <table>.copy.gz
    objects/            the objects, as a directory store

First the rows, out of one snapshot, then the objects that they name. Restoring goes the other way, so that no row names an object that is not there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from abruzzi import migrations
from abruzzi.backup import objects, tables
from abruzzi.backup.objects import ObjectFile
from abruzzi.backup.tables import TableFile
from abruzzi.contracts.errors import AbruzziError
from abruzzi.store import DirectoryStore, ObjectStore
from abruzzi.store.s3 import S3Store

FORMAT = 1
_DESCRIPTION, _OBJECTS = "backup.json", "objects.jsonl"


class Backup(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: int = FORMAT
    revision: str
    """Of the schema (Alembic)."""
    created_at: datetime
    """Of the snapshot."""
    tables: dict[str, TableFile]
    objects: int
    object_bytes: int
    gone: tuple[str, ...] = ()
    """Manifests of artifacts that were removed while the backup was made, or by a stage that runs; restored as deleted."""
    damaged: tuple[str, ...] = ()
    """What the store had lost or damaged already: the backup has the rows and not these objects."""


def create(folder: Path, owner_url: str, store: ObjectStore, *, now: datetime) -> tuple[Path, Backup]:
    """A new folder below `folder`, named by the time. The platform may run meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"abruzzi-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    unfinished = final.with_name(f".{final.name}.unfinished")
    if final.exists() or unfinished.exists():
        raise AbruzziError("backup_exists", f"{final} is there already, or is just being made.", status=409)
    unfinished.mkdir(mode=0o700)
    try:
        made = _create(unfinished, owner_url, store, now)
        os.sync()
        unfinished.rename(final)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return final, made


def _create(folder: Path, owner_url: str, store: ObjectStore, now: datetime) -> Backup:
    with tables.snapshot(owner_url) as connection:
        revision = tables.revision(connection)
        if revision is None:
            raise AbruzziError("no_schema", "The database has no tables of Abruzzi.", status=409)
        rows = tables.dump(connection, folder / "tables")
        what = objects.named(connection)
    copied = objects.copy(what, store, DirectoryStore(folder / "objects"), owner_url)
    made = Backup(
        revision=revision,
        created_at=now,
        tables=rows,
        objects=len(copied.files),
        object_bytes=sum(file.size for file in copied.files),
        gone=copied.gone,
        damaged=copied.damaged,
    )
    with (folder / _OBJECTS).open("w") as file:
        file.writelines(f"{each.model_dump_json()}\n" for each in copied.files)
    (folder / _DESCRIPTION).write_text(made.model_dump_json(indent=2) + "\n")
    return made


def read(backup: Path) -> Backup:
    """Raises AbruzziError `no_backup` or `corrupt_backup`."""
    try:
        made = Backup.model_validate_json((backup / _DESCRIPTION).read_text())
    except (FileNotFoundError, NotADirectoryError):
        hint = "Name a folder that `abruzzi backup create` has made: abruzzi-<time>."
        raise AbruzziError("no_backup", f"{backup} is no backup.", status=404, hint=hint) from None
    except (ValidationError, UnicodeDecodeError) as error:
        raise AbruzziError("corrupt_backup", f"{backup / _DESCRIPTION} is damaged: {error}", status=409) from error
    if made.format != FORMAT:
        raise AbruzziError(
            "newer_backup", f"{backup} has format {made.format}; this version reads {FORMAT}.", status=409
        )
    return made


def verify(backup: Path) -> Iterator[str]:
    """Reads everything again; a sentence for each thing that is not what was written."""
    made = read(backup)
    yield from tables.verify(backup / "tables", made.tables)
    files = _files(backup)
    if (len(files), sum(file.size for file in files)) != (made.objects, made.object_bytes):
        yield f"{_OBJECTS} is not what was written"
    yield from objects.verify(DirectoryStore(backup / "objects"), files)


def restore(
    backup: Path, owner_url: str, store: ObjectStore, *, role_urls: Mapping[str, str], overwrite: bool = False
) -> Backup:
    """Everything is verified before anything is written. The database ends with the newest schema.

    Raises AbruzziError `corrupt_backup`, `newer_backup`, `other_schema`, or `not_empty` where something is there already.
    """
    made = read(backup)
    if faults := list(verify(backup)):
        more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise AbruzziError("corrupt_backup", f"{backup} is damaged: {'; '.join(faults[:3])}{more}.", status=409)
    if not migrations.knows(made.revision):
        raise AbruzziError(
            "newer_backup",
            f"{backup} is of schema {made.revision}, which this version of Abruzzi does not know.",
            status=409,
            hint="Restore with the version that made it, or a newer one.",
        )
    with tables.snapshot(owner_url) as connection:
        there = tables.revision(connection)
        used = there is not None and tables.is_used(connection)
    if used and not overwrite:
        hint = "Restore into an empty database, or say --overwrite: everything in it is replaced."
        raise AbruzziError("not_empty", "The database holds runs or recipes already.", status=409, hint=hint)
    if there not in (None, made.revision):
        raise AbruzziError(
            "other_schema",
            f"The database has schema {there}, the backup {made.revision}.",
            status=409,
            hint="Restore into a database without tables (DROP DATABASE, CREATE DATABASE): it gets the backup's schema, then the newest.",
        )
    if isinstance(store, S3Store):
        store.ensure_bucket()  # a server that has lost everything, or a new one, has none
    if not overwrite and next(iter(store.list("projects/")), None) is not None:
        hint = "Restore into an empty bucket or directory, or say --overwrite: what is there stays beside what is restored."
        raise AbruzziError("not_empty", "The object store holds objects already.", status=409, hint=hint)
    migrations.upgrade(owner_url, role_urls, to=made.revision)
    objects.restore(DirectoryStore(backup / "objects"), _files(backup), store)
    tables.load(owner_url, backup / "tables", made.tables, gone=made.gone, overwrite=overwrite)
    migrations.upgrade(owner_url, role_urls)
    return made


def expire(folder: Path, *, keep: int) -> Sequence[Path]:
    """Removes all but the newest `keep` whole backups of `folder`; what it removed."""
    whole = sorted(path.parent for path in folder.glob(f"abruzzi-*/{_DESCRIPTION}"))
    superfluous = whole[: max(0, len(whole) - keep)]
    for path in superfluous:
        (path / _DESCRIPTION).unlink()  # first, so that half of one is never taken for a backup
        shutil.rmtree(path)
    return superfluous


def _files(backup: Path) -> list[ObjectFile]:
    try:
        return [ObjectFile.model_validate_json(line) for line in (backup / _OBJECTS).read_text().splitlines()]
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise AbruzziError("corrupt_backup", f"{backup / _OBJECTS} is damaged: {error}", status=409) from error
