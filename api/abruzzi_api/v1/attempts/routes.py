"""Attempts: what stages report. A stage's token reaches its own attempt only."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import BackgroundTasks, Body, Path, Query
from pydantic import BaseModel, ConfigDict

from abruzzi.artifacts import service as artifacts
from abruzzi.contracts.artifact import Digest
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.metric import Heartbeat, MetricBatch
from abruzzi.contracts.resources import ArtifactOut, AttemptOut, Resource
from abruzzi.contracts.states import AttemptState
from abruzzi.logs import service as logs
from abruzzi.metrics import service as metrics
from abruzzi.runs import heartbeat, query
from abruzzi.runs.ownership import output_prefix, require_live, require_own
from abruzzi.store import missing_manifests, read_manifest
from abruzzi_api.work import ReadWork, ReportWork, Router

router = Router(prefix="/attempts", tags=["attempts"])
AttemptId = Annotated[str, Path(max_length=32)]


class Accepted(Resource):
    accepted: int
    new: int
    attempt_ended: bool = False
    """The platform has given the attempt up: its points are kept, its heartbeat is not, and it had better stop."""
    heartbeat_refused: str | None = None
    """Why the heartbeat that came with points was not taken; they were."""


class LogAppended(Resource):
    end_offset: int


class ArtifactIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    manifest_key: str
    digest: Digest


class Registered(Resource):
    artifact: ArtifactOut | None


@router.get("/{attempt_id}", operation_id="attempts_get")
async def get_attempt(attempt_id: AttemptId, work: ReadWork) -> AttemptOut:
    return await query.get_attempt(work.session, attempt_id)


@router.post("/{attempt_id}/metrics", operation_id="attempts_report_metrics", status_code=202)
async def report_metrics(attempt_id: AttemptId, body: MetricBatch, work: ReportWork) -> Accepted:
    """Points, idempotent by (attempt, key, step): sending a batch again changes nothing. Durable when answered. With or without a heartbeat."""
    attempt = await query.attempt_row(work.session, attempt_id)
    ended = AttemptState(attempt.state).is_terminal
    refused = None
    if body.heartbeat is not None and not ended:
        try:
            await heartbeat.record_of_living(work.session, attempt, body.heartbeat, now=work.clock.now())
        except AbruzziError as error:
            if error.code != "no_such_rank":
                raise
            refused = error.message
    new = await metrics.ingest(  # and ring, for both
        work.session, project_id=attempt.project_id, run_id=attempt.run_id, attempt_id=attempt_id, batch=body
    )
    accepted = sum(len(s.steps) for s in body.series.values())
    return Accepted(accepted=accepted, new=new, attempt_ended=ended, heartbeat_refused=refused)


@router.post("/{attempt_id}/heartbeats", operation_id="attempts_report_heartbeat", status_code=202)
async def report_heartbeat(attempt_id: AttemptId, body: Heartbeat, work: ReportWork) -> Accepted:
    """Where a rank is. 409 `attempt_ended` when the platform has given the attempt up."""
    await heartbeat.record(work.session, attempt_id, body, now=work.clock.now())
    return Accepted(accepted=1, new=1)


@router.put("/{attempt_id}/logs/{rank}", operation_id="attempts_report_log")
async def report_log(
    attempt_id: AttemptId,
    rank: Annotated[int, Path(ge=0, le=100_000)],
    offset: Annotated[int, Query(ge=0, le=2**60)],
    data: Annotated[bytes, Body(media_type="application/octet-stream")],
    work: ReportWork,
    after: BackgroundTasks,
) -> LogAppended:
    """Bytes of a rank's log at an offset. Known bytes are skipped; 409 `log_gap` says which offset is expected."""
    attempt = await query.attempt_row(work.session, attempt_id)
    appended = await logs.append(work.session, work.objects, attempt, rank, offset, data)
    if appended.replaced_key is not None:
        after.add_task(asyncio.to_thread, work.objects.delete, appended.replaced_key)
    return LogAppended(end_offset=appended.end_offset)


@router.post("/{attempt_id}/artifacts", operation_id="attempts_report_artifact", status_code=202)
async def report_artifact(attempt_id: AttemptId, body: ArtifactIn, work: ReportWork) -> Registered:
    """A manifest that the stage has committed. The platform reads it itself and trusts only that. 409 `attempt_ended` after its outcome."""
    attempt = await query.attempt_row(work.session, attempt_id)
    require_live(attempt)
    if not body.manifest_key.startswith(output_prefix(attempt)):  # before anything of another stage is read
        raise AbruzziError("foreign_artifact", "The manifest is not below this attempt's prefix.", status=403)
    manifest = await asyncio.to_thread(read_manifest, work.objects, body.manifest_key)
    if manifest.digest() != body.digest:
        raise AbruzziError("digest_mismatch", "The manifest does not hash to that digest.", status=409)
    require_own(attempt, body.manifest_key, manifest)
    # A stage that commits a checkpoint removes old ones: their rows are marked now, not only when the attempt ends.
    known = await artifacts.known_keys(work.session, attempt.run_id, attempt.stage_id)
    gone = await asyncio.to_thread(missing_manifests, work.objects, known)
    await artifacts.mark_deleted(work.session, gone, now=work.clock.now())
    artifact_id = await artifacts.record(work.session, body.manifest_key, manifest, verified_at=None)
    return Registered(artifact=await artifacts.get(work.session, artifact_id) if artifact_id else None)
