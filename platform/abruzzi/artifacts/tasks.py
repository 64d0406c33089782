"""Side work of artifacts: digests are read again from time to time; files of artifacts that were marked deleted go."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.artifacts import service
from abruzzi.artifacts.models import ArtifactRow
from abruzzi.contracts.artifact import FileEntry
from abruzzi.contracts.errors import AbruzziError, NotFound
from abruzzi.events import service as events
from abruzzi.kit.db import transaction
from abruzzi.kit.ground import Budget, Ground, Outcome
from abruzzi.runs.models import RunRow
from abruzzi.store import CorruptArtifact, blob_key, prefix_of, read_manifest, remove_artifact

_CHUNK = 8 << 20
BATCH = 20


async def verify(ground: Ground, budget: Budget) -> Outcome:
    """Artifacts whose digests were not read for `verify_days`, longest first. A large one is done over several steps, file by file."""
    verified = corrupt = 0
    while not budget.is_spent:
        before = ground.clock.now() - timedelta(days=ground.settings.verify_days)
        async with transaction(ground.sessions) as session:
            row = (await session.execute(_unchecked(before).limit(1))).scalar_one_or_none()
        if row is None:
            return Outcome({"verified": verified, "corrupt": corrupt})
        damage = await _check(ground, row, budget)
        if damage is None:  # the time is up in the middle of it
            break
        corrupt += bool(damage)
        verified += not damage
    return Outcome({"verified": verified, "corrupt": corrupt}, more=True)


async def count_deleted(session: AsyncSession, before: datetime) -> int:
    """Artifacts whose files would go."""
    return (await session.execute(select(func.count()).select_from(_unpurged(before).subquery()))).scalar_one()


async def remove_deleted(ground: Ground, before: datetime) -> int:
    """Manifest, then blobs that no other manifest of the stage names. Only of runs that have ended: nothing writes there any more."""
    async with transaction(ground.sessions) as session:
        rows = (await session.execute(_unpurged(before).limit(BATCH))).scalars().all()
    for row in rows:
        try:
            manifest = await asyncio.to_thread(read_manifest, ground.objects, row.manifest_key)
        except NotFound:
            pass  # the stage removed it itself, with its blobs
        else:
            await asyncio.to_thread(remove_artifact, ground.objects, row.manifest_key, manifest)
        async with transaction(ground.sessions) as session:
            now = ground.clock.now()
            await session.execute(update(ArtifactRow).where(ArtifactRow.id == row.id).values(purged_at=now))
    return len(rows)


async def _check(ground: Ground, row: ArtifactRow, budget: Budget) -> str | None:
    """What is wrong with it (nothing: empty), or None when the time was up first; how far it came is remembered."""
    prefix = prefix_of(row.manifest_key)
    try:
        manifest = await asyncio.to_thread(read_manifest, ground.objects, row.manifest_key)
        for number, entry in enumerate(manifest.files[row.checked_files :], row.checked_files):
            if budget.is_spent and number > row.checked_files:
                await _remember(ground, row, checked_files=number)
                return None
            if (fault := await _fault(ground, prefix, entry)) is not None:
                raise CorruptArtifact(manifest, entry.path, fault)
    except AbruzziError as error:
        if error.code not in ("corrupt_artifact", "corrupt_manifest", "not_found"):
            raise  # the store is away: that says nothing about the artifact
        return await _mark_corrupt(ground, row, error.message)
    now = ground.clock.now()
    await _remember(ground, row, checked_files=0, checked_at=now, verified_at=now, corrupt_at=None)
    return ""


async def _mark_corrupt(ground: Ground, row: ArtifactRow, message: str) -> str:
    """Also tells subscribers. While the run goes on a manifest that is gone was removed by the stage's own retention: no damage."""
    now = ground.clock.now()
    async with transaction(ground.sessions) as session:
        ended = (await session.execute(select(RunRow.state.in_(RunRow.ENDED)).where(RunRow.id == row.run_id))).scalar_one()  # fmt: skip
        await session.execute(update(ArtifactRow).where(ArtifactRow.id == row.id).values(checked_at=now, checked_files=0))  # fmt: skip
        if not ended and not await asyncio.to_thread(ground.objects.exists, row.manifest_key):
            return ""
        damaged = {row.manifest_key: message}
        await service.mark_corrupt(session, row.project_id, row.run_id, row.stage_id, damaged)
        body = {"artifact_id": row.id, "run_id": row.run_id, "stage": row.stage_id, "name": row.name, "reason": message}
        events.enqueue(session, row.project_id, "artifact.corrupt", body)
    return message


async def _fault(ground: Ground, prefix: str, entry: FileEntry) -> str | None:
    """Read in pieces, so that a worker that is told to stop can."""
    try:
        stream = await asyncio.to_thread(ground.objects.open, blob_key(prefix, entry.digest))
    except NotFound:
        return "is gone"
    digest = hashlib.sha256()
    try:
        while chunk := await asyncio.to_thread(stream.read, _CHUNK):
            await asyncio.to_thread(digest.update, chunk)
    finally:
        stream.close()
    return None if entry.digest == "sha256:" + digest.hexdigest() else "does not hash to its digest"


async def _remember(ground: Ground, row: ArtifactRow, **values: datetime | int | None) -> None:
    async with transaction(ground.sessions) as session:
        await session.execute(update(ArtifactRow).where(ArtifactRow.id == row.id).values(**values))


def _unchecked(before: datetime):  # type: ignore[no-untyped-def]
    last = func.coalesce(ArtifactRow.checked_at, ArtifactRow.verified_at, ArtifactRow.created_at)
    started = ArtifactRow.checked_files > 0
    return (
        select(ArtifactRow)
        .where(ArtifactRow.deleted_at.is_(None), or_(started, last < before))
        .order_by(started.desc(), last)
    )


def _unpurged(before: datetime):  # type: ignore[no-untyped-def]
    return (
        select(ArtifactRow)
        .join(RunRow, RunRow.id == ArtifactRow.run_id)
        .where(ArtifactRow.deleted_at < before, ArtifactRow.purged_at.is_(None), RunRow.state.in_(RunRow.ENDED))
    )
