"""Exporting a run to the object store, as an artifact: asked for by a person, made by a worker."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.artifacts import service as artifacts
from abruzzi.client.export import CurveFormat, RunFolder
from abruzzi.contracts.errors import Conflict, NotFound
from abruzzi.contracts.notification import ExportOut
from abruzzi.contracts.resources import EventOut
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import ArtifactKind, StageKind
from abruzzi.events import service as events
from abruzzi.events.outbox import Message
from abruzzi.kit.ground import Ground
from abruzzi.metrics import service as metrics
from abruzzi.runs import query
from abruzzi.store import commit_artifact, manifest_key, materialize, prefix_of, read_manifest

KIND = "run.export"
FORMATS = (CurveFormat.PARQUET, CurveFormat.TENSORBOARD)
MAX_POINTS = 20_000
"""A curve with more comes as buckets with exact extrema."""
_PAGE = 500


async def request(session: AsyncSession, run_id: str, *, now: datetime) -> ExportOut:
    """It lies with the run's last attempt. Raises NotFound, or Conflict when there is nothing yet."""
    run = await query.row(session, run_id)
    attempts = [a for group in (await query.attempt_rows(session, run_id)).values() for a in group]
    if not attempts:
        raise Conflict(f"Run {run_id} has not started a stage yet: there is nothing to export.", hint=f"`abruzzi runs why {run_id}`")  # fmt: skip
    last = max(attempts, key=lambda a: a.epoch)
    name = f"run-{now:%Y%m%dT%H%M%S%f}".lower()
    body = {"run_id": run_id, "stage_id": last.stage_id, "attempt_id": last.id, "epoch": last.epoch, "name": name}
    events.enqueue(session, run.project_id, KIND, body)
    return ExportOut(run_id=run_id, stage_id=last.stage_id, name=name)


async def export(ground: Ground, session: AsyncSession, message: Message) -> None:
    """Consumer of `run.export`. What an earlier try has committed is recorded and not made again."""
    body = message.body
    prefix = f"projects/{message.project_id}/runs/{body['run_id']}/{body['stage_id']}/"
    key = manifest_key(prefix, body["epoch"], body["name"])
    try:
        manifest = await asyncio.to_thread(read_manifest, ground.objects, key)
    except NotFound:
        with tempfile.TemporaryDirectory(prefix="abruzzi-export-") as scratch:
            files = await _write(ground, session, body["run_id"], Path(scratch))
            spec = StageSpec(
                project_id=message.project_id, run_id=body["run_id"], stage_id=body["stage_id"], attempt_id=body["attempt_id"],
                epoch=body["epoch"], kind=StageKind.CONTAINER, config={}, store=ground.settings.store_config(), output_prefix=prefix,
            )  # fmt: skip
            key, manifest = await asyncio.to_thread(
                commit_artifact, ground.objects, spec, kind=ArtifactKind.EXPORT, name=body["name"], files=files
            )
    await artifacts.record(session, key, manifest, verified_at=ground.clock.now())


async def _write(ground: Ground, session: AsyncSession, run_id: str, scratch: Path) -> dict[str, Path]:
    """{logical name: file}."""
    run = await query.get(session, run_id, now=ground.clock.now())
    told = [event async for event in _events(session, run_id)]
    keys = sorted({k.key for k in await metrics.list_keys(session, run_id)})
    with await asyncio.to_thread(RunFolder, scratch / "run", run, told, FORMATS) as folder:
        for key in keys:
            for curve in await metrics.series(session, run_id, [key], max_points=MAX_POINTS):
                await asyncio.to_thread(folder.add, curve)
    await _reports(ground, session, run_id, folder.path / "report")
    return {name: folder.path / name for name in folder.files()}


async def _events(session: AsyncSession, run_id: str) -> AsyncIterator[EventOut]:
    after = 0
    while page := await events.read(session, after=after, run_id=run_id, limit=_PAGE):
        for event in page:
            yield event
        after = int(page[-1].id)


async def _reports(ground: Ground, session: AsyncSession, run_id: str, folder: Path) -> None:
    """Reports of the evaluate stages, below the stage's name; the newest of each."""
    found = await artifacts.list_artifacts(session, run_id=run_id, kind=ArtifactKind.REPORT, limit=_PAGE)
    for report in {a.stage_id: a for a in found if a.deleted_at is None}.values():
        manifest = await asyncio.to_thread(read_manifest, ground.objects, report.manifest_key)
        prefix = prefix_of(report.manifest_key)
        await asyncio.to_thread(materialize, ground.objects, manifest, prefix, folder / report.stage_id)
