"""Artifacts: what stages made."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import Path, Query
from fastapi.responses import StreamingResponse

from abruzzi.artifacts import service as artifacts
from abruzzi.artifacts.attack_text import OPEN_FILES, SHOWN, holds_attacks
from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.errors import NotFound
from abruzzi.contracts.resources import ArtifactOut, Page, Resource
from abruzzi.contracts.states import ArtifactKind
from abruzzi.identity.policy import Action
from abruzzi.runs import query
from abruzzi.store import ObjectStore, blob_key, prefix_of, read_manifest
from abruzzi_api import auditing
from abruzzi_api.pagination import Cursor, Limit, decode_moment, page
from abruzzi_api.work import ReadWork, Router, Work

router = Router(prefix="/artifacts", tags=["artifacts"])


class Lineage(Resource):
    items: list[ArtifactOut]


ArtifactId = Annotated[str, Path(max_length=32)]


@router.get("", operation_id="artifacts_list")
async def list_artifacts(
    work: ReadWork,
    run: Annotated[
        str | None, Query(max_length=16, description="Of a run; by default of all runs of the project")
    ] = None,
    stage: Annotated[str | None, Query(max_length=16)] = None,
    kind: ArtifactKind | None = None,
    rows: Annotated[
        bool, Query(description="Only of kinds that may hold rows for people: corpora, tools, conversations, …")
    ] = False,
    order: Annotated[Literal["oldest", "newest"], Query(description="Which come first")] = "oldest",
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[ArtifactOut]:
    if run is not None:
        await query.row(work.session, run)
    found = await artifacts.list_artifacts(
        work.session,
        run_id=run,
        stage_id=stage,
        kind=kind,
        with_rows=rows,
        after=decode_moment(cursor),
        limit=limit + 1,
        newest_first=order == "newest",
    )
    return Page[ArtifactOut].model_validate(page(found, limit, lambda a: (a.created_at.isoformat(), a.id)))


@router.get("/{artifact_id}", operation_id="artifacts_get")
async def get_artifact(artifact_id: ArtifactId, work: ReadWork) -> ArtifactOut:
    return await artifacts.get(work.session, artifact_id)


@router.get("/{artifact_id}/lineage", operation_id="artifacts_lineage")
async def get_lineage(artifact_id: ArtifactId, work: ReadWork) -> Lineage:
    """Everything that it was made from, directly or not, oldest first; `parents` says how. Also of other runs, where it began with a branch."""
    return Lineage(items=await artifacts.lineage(work.session, artifact_id))


@router.get("/{artifact_id}/manifest", operation_id="artifacts_manifest")
async def get_manifest(artifact_id: ArtifactId, work: ReadWork) -> Manifest:
    return (await manifest_of(work, artifact_id))[1]


@router.get("/{artifact_id}/files/{path:path}", operation_id="artifacts_file", response_class=StreamingResponse)
async def get_file(
    artifact_id: ArtifactId, path: Annotated[str, Path(max_length=256)], work: ReadWork
) -> StreamingResponse:
    """One file, as an attachment. `path` is looked up in the manifest; it never becomes a path of this machine."""
    artifact, manifest = await manifest_of(work, artifact_id)
    entry = next((f for f in manifest.files if f.path == path), None)
    if entry is None:
        raise NotFound("file", path, hint=f"Its files: {', '.join(f.path for f in manifest.files[:10])}.")
    if holds_attacks(artifact.kind) and path not in OPEN_FILES:
        work.require(Action.READ_ATTACKS)
        auditing.record_shown(work.session, work.identity, SHOWN, f"/api/v1/artifacts/{artifact_id}/files/{path}")
    key = blob_key(prefix_of(artifact.manifest_key), entry.digest)
    stream = await asyncio.to_thread(_chunks, work.objects, key)
    name = quote(path.rsplit("/", 1)[-1])
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "Content-Length": str(entry.size_bytes),
        "ETag": f'"{entry.digest}"',
    }
    return StreamingResponse(stream, media_type="application/octet-stream", headers=headers)


async def manifest_of(work: Work, artifact_id: str) -> tuple[ArtifactOut, Manifest]:
    """Raises NotFound also for one whose files retention removed."""
    artifact = await artifacts.get(work.session, artifact_id)
    if artifact.deleted_at is not None:
        raise NotFound("manifest of artifact", artifact_id, hint="Retention removed its files.")
    return artifact, await asyncio.to_thread(read_manifest, work.objects, artifact.manifest_key)


def _chunks(objects: ObjectStore, key: str) -> Iterator[bytes]:
    stream = objects.open(key)

    def read() -> Iterator[bytes]:
        with stream:
            while chunk := stream.read(1 << 18):
                yield chunk

    return read()
