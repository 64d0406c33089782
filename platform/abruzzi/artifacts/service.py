"""Artifacts in Postgres: what was committed to the object store, and its lineage."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.artifacts.models import ArtifactParentRow, ArtifactRow
from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.errors import NotFound
from abruzzi.contracts.resources import ArtifactOut
from abruzzi.contracts.states import ArtifactKind
from abruzzi.evaluations import service as evaluations
from abruzzi.events import service as events
from abruzzi.events.models import EventRow
from abruzzi.kit.ids import new_id

WITHOUT_ROWS = (
    ArtifactKind.TOKENIZER,
    ArtifactKind.DATASET,
    ArtifactKind.CHECKPOINT,
    ArtifactKind.EXPORT,
)
"""Kinds that hold numbers for programs."""


async def record(session: AsyncSession, key: str, manifest: Manifest, *, verified_at: datetime | None) -> str | None:
    """Id of the artifact's new row, or None when the manifest is known. Lineage comes from the digests of its parents.

    The caller has checked that the manifest speaks of the attempt that committed it.
    """
    digest = manifest.digest()
    manifest = manifest.model_copy(update={"meta": _storable(manifest.meta)})
    statement = (
        insert(ArtifactRow)
        .values(
            id=new_id(),
            project_id=manifest.project_id,
            run_id=manifest.run_id,
            stage_id=manifest.stage_id,
            attempt_id=manifest.attempt_id,
            kind=manifest.kind,
            name=manifest.name,
            step=manifest.step,
            epoch=manifest.epoch,
            digest=digest,
            manifest_key=key,
            size_bytes=manifest.size_bytes,
            meta=manifest.meta,
            verified_at=verified_at,
            created_at=manifest.created_at,
        )
        .on_conflict_do_nothing(index_elements=["manifest_key"])
        .returning(ArtifactRow.id)
    )
    artifact_id = (await session.execute(statement)).scalar_one_or_none()
    if artifact_id is None:
        if verified_at is not None:
            await session.execute(
                update(ArtifactRow)
                .where(ArtifactRow.manifest_key == key, ArtifactRow.verified_at.is_(None))
                .values(verified_at=verified_at, corrupt_at=None)
            )
        return None
    if manifest.parents:
        parents = (
            (
                await session.execute(
                    select(ArtifactRow.id).where(
                        ArtifactRow.project_id == manifest.project_id, ArtifactRow.digest.in_(manifest.parents)
                    )
                )
            )
            .scalars()
            .all()
        )
        session.add_all(
            ArtifactParentRow(artifact_id=artifact_id, parent_id=p, project_id=manifest.project_id)
            for p in set(parents)
        )
    if manifest.kind is ArtifactKind.REPORT:
        await evaluations.record(session, artifact_id, manifest)
    body = {
        "artifact": artifact_id,
        "stage": manifest.stage_id,
        "kind": manifest.kind,
        "name": manifest.name,
        "step": manifest.step,
    }
    events.append(session, manifest.project_id, manifest.run_id, "artifact.created", body)
    events.ring(session, events.CHANNEL_EVENTS, manifest.run_id)
    return artifact_id


async def get(session: AsyncSession, artifact_id: str) -> ArtifactOut:
    """Raises NotFound."""
    row = await session.get(ArtifactRow, artifact_id)
    if row is None:
        raise NotFound("artifact", artifact_id)
    return (await _outputs(session, [row]))[0]


async def require_digest(session: AsyncSession, project_id: str, digest: str) -> None:
    """Raises NotFound where the project has no artifact of this digest."""
    query = select(ArtifactRow.id).where(ArtifactRow.project_id == project_id, ArtifactRow.digest == digest).limit(1)
    if (await session.execute(query)).first() is None:
        raise NotFound("artifact", digest)


async def list_artifacts(
    session: AsyncSession,
    *,
    run_id: str | None = None,
    stage_id: str | None = None,
    kind: ArtifactKind | None = None,
    with_rows: bool = False,
    after: tuple[datetime, str] | None = None,
    limit: int = 100,
    newest_first: bool = False,
) -> list[ArtifactOut]:
    """Oldest first, or newest first, after the (created_at, id) of the last one seen. `with_rows`: of kinds that may hold rows for people."""
    position = tuple_(ArtifactRow.created_at, ArtifactRow.id)
    order = (ArtifactRow.created_at, ArtifactRow.id)
    query = select(ArtifactRow).order_by(*((c.desc() for c in order) if newest_first else order)).limit(limit)
    if run_id:
        query = query.where(ArtifactRow.run_id == run_id)
    if stage_id:
        query = query.where(ArtifactRow.stage_id == stage_id)
    if kind:
        query = query.where(ArtifactRow.kind == kind)
    if with_rows:
        query = query.where(ArtifactRow.kind.not_in(WITHOUT_ROWS))
    if after:
        query = query.where(position < after if newest_first else position > after)
    return await _outputs(session, list((await session.execute(query)).scalars()))


async def newest(session: AsyncSession, run_id: str, stage_id: str, kind: str) -> ArtifactRow | None:
    """The stage's output of this kind that is there and not known to be damaged: for checkpoints the last step, else the last one made."""
    query = (
        select(ArtifactRow)
        .where(
            ArtifactRow.run_id == run_id,
            ArtifactRow.stage_id == stage_id,
            ArtifactRow.kind == kind,
            ArtifactRow.deleted_at.is_(None),
            ArtifactRow.corrupt_at.is_(None),
        )
        .order_by(ArtifactRow.step.desc().nulls_last(), ArtifactRow.epoch.desc(), ArtifactRow.created_at.desc())
        .limit(1)
    )
    return (await session.execute(query)).scalar_one_or_none()


async def damaged(session: AsyncSession, run_id: str, stage_id: str, kind: str) -> list[str]:
    """Names of the stage's outputs of this kind that were found damaged."""
    query = (
        select(ArtifactRow.name)
        .where(
            ArtifactRow.run_id == run_id,
            ArtifactRow.stage_id == stage_id,
            ArtifactRow.kind == kind,
            ArtifactRow.corrupt_at.is_not(None),
        )
        .order_by(ArtifactRow.name)
    )
    return list((await session.execute(query)).scalars())


async def lineage(session: AsyncSession, artifact_id: str) -> list[ArtifactOut]:
    """Everything that the artifact was made from, directly or not, oldest first. Raises NotFound."""
    await get(session, artifact_id)
    above = (
        select(ArtifactParentRow.parent_id)
        .where(ArtifactParentRow.artifact_id == artifact_id)
        .cte("above", recursive=True)
    )
    above = above.union(
        select(ArtifactParentRow.parent_id).join(above, ArtifactParentRow.artifact_id == above.c.parent_id)
    )
    query = (
        select(ArtifactRow)
        .where(ArtifactRow.id.in_(select(above.c.parent_id)))
        .order_by(ArtifactRow.created_at, ArtifactRow.id)
    )
    return await _outputs(session, list((await session.execute(query)).scalars()))


async def known_keys(session: AsyncSession, run_id: str, stage_id: str) -> dict[str, datetime | None]:
    """{manifest key: verified at} of what Postgres knows of a stage and retention has not removed."""
    query = select(ArtifactRow.manifest_key, ArtifactRow.verified_at).where(
        ArtifactRow.run_id == run_id, ArtifactRow.stage_id == stage_id, ArtifactRow.deleted_at.is_(None)
    )
    return {row.manifest_key: row.verified_at for row in (await session.execute(query)).all()}


async def mark_deleted(session: AsyncSession, keys: Collection[str], *, now: datetime) -> int:
    """Retention removed these manifests: their rows stay, marked. Returns how many."""
    statement = (
        update(ArtifactRow)
        .where(ArtifactRow.manifest_key.in_(keys), ArtifactRow.deleted_at.is_(None))
        .values(deleted_at=now)
        .returning(ArtifactRow.id)
    )
    return len((await session.execute(statement)).all()) if keys else 0


async def mark_corrupt(
    session: AsyncSession, project_id: str, run_id: str, stage_id: str, damaged: Mapping[str, str]
) -> None:
    """`damaged`: {manifest key: what is wrong}. Their rows are marked, called verified no longer, and an event names each, once."""
    if not damaged:
        return
    cleared = (
        update(ArtifactRow)
        .where(
            ArtifactRow.manifest_key.in_(damaged),
            or_(ArtifactRow.verified_at.is_not(None), ArtifactRow.corrupt_at.is_(None)),
        )
        .values(verified_at=None, corrupt_at=func.now())
        .returning(ArtifactRow.manifest_key)
    )
    news = set((await session.execute(cleared)).scalars())
    told = select(EventRow.body["key"].astext).where(EventRow.run_id == run_id, EventRow.kind == "artifact.corrupt")
    news |= damaged.keys() - set((await session.execute(told)).scalars())
    for key in sorted(news):
        body = {"stage": stage_id, "key": key, "reason": damaged[key]}
        events.append(session, project_id, run_id, "artifact.corrupt", body)
    events.ring(session, events.CHANNEL_EVENTS, run_id)


async def mark_damaged_inputs(session: AsyncSession, damaged: Mapping[str, str]) -> None:
    """`mark_corrupt` for artifacts of any stage and run: each is told where it was made."""
    rows = (
        await session.execute(select(ArtifactRow).where(ArtifactRow.manifest_key.in_(damaged)).order_by(ArtifactRow.id))
    ).scalars()
    for row in rows.all():
        told = {row.manifest_key: damaged[row.manifest_key]}
        await mark_corrupt(session, row.project_id, row.run_id, row.stage_id, told)


def _storable(value: Any) -> Any:
    """Postgres' JSON knows neither NaN nor infinity (such numbers become null) nor the character 0."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case str():
            return value.replace("\x00", "\ufffd")
        case dict():
            return {_storable(key): _storable(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_storable(inner) for inner in value]
        case _:
            return value


async def _outputs(session: AsyncSession, rows: Sequence[ArtifactRow]) -> list[ArtifactOut]:
    parents: dict[str, list[str]] = defaultdict(list)
    if rows:
        query = (
            select(ArtifactParentRow)
            .where(ArtifactParentRow.artifact_id.in_([r.id for r in rows]))
            .order_by(ArtifactParentRow.parent_id)
        )
        for link in (await session.execute(query)).scalars():
            parents[link.artifact_id].append(link.parent_id)
    return [
        ArtifactOut(
            id=r.id,
            project_id=r.project_id,
            run_id=r.run_id,
            stage_id=r.stage_id,
            attempt_id=r.attempt_id,
            kind=ArtifactKind(r.kind),
            name=r.name,
            step=r.step,
            digest=r.digest,
            manifest_key=r.manifest_key,
            size_bytes=r.size_bytes,
            meta=r.meta,
            parents=parents[r.id],
            verified_at=r.verified_at,
            corrupt_at=r.corrupt_at,
            deleted_at=r.deleted_at,
            created_at=r.created_at,
        )
        for r in rows
    ]
