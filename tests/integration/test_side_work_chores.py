"""Verification, retention, exports and gauges over a real Postgres and a directory of objects."""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from sqlalchemy import func, select, table, text

from abruzzi.artifacts import service
from abruzzi.artifacts import tasks as artifacts
from abruzzi.artifacts.models import ArtifactRow
from abruzzi.client.tensorboard import crc32c
from abruzzi.contracts.errors import AbruzziError, Conflict
from abruzzi.contracts.metric import MetricBatch, Series
from abruzzi.contracts.retention import RetentionPolicy
from abruzzi.contracts.stage import DirectoryStore as DirectoryConfig
from abruzzi.contracts.states import ArtifactKind
from abruzzi.events import service as events
from abruzzi.events.models import OutboxRow
from abruzzi.gauges import service as gauges
from abruzzi.identity import service as identity
from abruzzi.kit.db import transaction
from abruzzi.kit.ground import Budget, Ground
from abruzzi.kit.settings import Settings
from abruzzi.logs import service as logs
from abruzzi.metrics import service as metrics
from abruzzi.runs import exports, query
from abruzzi.store import blob_key, commit_artifact, prefix_of, read_manifest
from abruzzi.workers import retention, steps

ALWAYS = 1e9
DAY = 86400.0
ONE_STAGE = """
version = 1
name = "one"

[[stage]]
id = "work"
kind = "container"
[stage.container]
command = ["true"]
"""


@pytest.fixture
def ground(world) -> Ground:  # type: ignore[no-untyped-def]
    world.clock.moment = datetime.now(UTC) + timedelta(days=1)  # the database dates messages by its own clock
    settings = Settings(store=DirectoryConfig(root=str(world.objects.root)), verify_days=30)
    return Ground(world.sessions, world.objects, settings, world.clock)


async def started(world: Any) -> tuple[str, str]:
    """(run, attempt) of a stage that runs."""
    run_id = await world.submit(ONE_STAGE)
    await world.steps(run_id)
    return run_id, f"{run_id}-work-1"


async def rows(ground: Ground, model: Any = ArtifactRow) -> list[Any]:
    async with transaction(ground.sessions) as session:
        return list((await session.execute(select(model).order_by(model.id))).scalars())


async def count(ground: Ground, name: str) -> int:
    async with transaction(ground.sessions) as session:
        return (await session.execute(select(func.count()).select_from(table(name)))).scalar_one()


async def test_artifacts_are_read_again_when_it_is_time_and_not_before(world, ground: Ground) -> None:  # type: ignore[no-untyped-def]
    _, attempt_id = await started(world)
    await world.commit(attempt_id, "files", "good")
    await world.end(attempt_id)
    assert (await artifacts.verify(ground, Budget(ALWAYS))).facts == {"verified": 0, "corrupt": 0}
    world.clock.turn(31 * DAY)
    assert (await artifacts.verify(ground, Budget(ALWAYS))).facts == {"verified": 1, "corrupt": 0}
    [row] = await rows(ground)
    assert row.verified_at == row.checked_at == world.clock.now()
    assert (await artifacts.verify(ground, Budget(ALWAYS))).facts["verified"] == 0


@pytest.mark.parametrize("damage", ["changed", "gone", "manifest gone", "manifest unreadable"])
async def test_a_damaged_artifact_is_marked_once_and_told_to_subscribers(world, ground: Ground, damage: str) -> None:  # type: ignore[no-untyped-def]
    run_id, attempt_id = await started(world)
    key, manifest = await world.commit(attempt_id, "files", "bad")
    await world.end(attempt_id)
    blob = world.objects.path(blob_key(prefix_of(key), manifest.files[0].digest))
    match damage:
        case "changed":
            blob.write_bytes(b"\0" + blob.read_bytes()[1:])
        case "gone":
            blob.unlink()
        case "manifest gone":
            world.objects.path(key).unlink()
        case "manifest unreadable":
            world.objects.path(key).write_text("{")
    world.clock.turn(31 * DAY)
    assert (await artifacts.verify(ground, Budget(ALWAYS))).facts == {"verified": 0, "corrupt": 1}
    assert (await artifacts.verify(ground, Budget(ALWAYS))).facts["corrupt"] == 0, "told once, not at every look"
    [row] = await rows(ground)
    assert row.verified_at is None
    assert row.corrupt_at is not None
    [told] = [m for m in await rows(ground, OutboxRow) if m.kind == "artifact.corrupt"]
    assert (told.body["artifact_id"], told.body["run_id"]) == (row.id, run_id)
    async with transaction(ground.sessions) as session:
        seen = [e.kind for e in await events.read(session, run_id=run_id)]
    assert seen.count("artifact.corrupt") == 1


async def test_what_a_running_stage_has_removed_itself_is_no_damage(world, ground: Ground) -> None:  # type: ignore[no-untyped-def]
    _, attempt_id = await started(world)
    key, _ = await world.commit(attempt_id, "checkpoint", "step-1", step=1)
    async with transaction(ground.sessions) as session:
        await service.record(session, key, read_manifest(world.objects, key), verified_at=world.clock.now())
    world.objects.delete(key)
    world.clock.turn(31 * DAY)
    assert (await artifacts.verify(ground, Budget(ALWAYS))).facts["corrupt"] == 0
    [row] = await rows(ground)
    assert row.corrupt_at is None


async def test_a_store_that_is_away_says_nothing_about_an_artifact(
    world, ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    _, attempt_id = await started(world)
    await world.commit(attempt_id, "files", "good")
    await world.end(attempt_id)
    world.clock.turn(31 * DAY)

    def away(key: str) -> bytes:
        raise AbruzziError("store_unavailable", "The object store does not answer.", status=503)

    monkeypatch.setattr(ground.objects, "get", away)
    with pytest.raises(AbruzziError, match="does not answer"):
        await artifacts.verify(ground, Budget(ALWAYS))
    [row] = await rows(ground)
    assert (row.corrupt_at, row.checked_at) == (None, None)


async def test_a_check_that_runs_out_of_time_goes_on_where_it_stopped(world, ground: Ground) -> None:  # type: ignore[no-untyped-def]
    _, attempt_id = await started(world)
    spec = await world.store.spec(attempt_id)
    files = {}
    for name in ("a", "b", "c"):
        files[name] = world.scratch / name
        files[name].write_text(name)
    commit_artifact(world.objects, spec, kind=ArtifactKind.FILES, name="three", files=files)
    await world.end(attempt_id)
    world.clock.turn(31 * DAY)
    progress = []
    for _ in range(3):
        budget = _OneItem()
        outcome = await artifacts.verify(ground, budget)
        [row] = await rows(ground)
        progress.append((outcome.facts["verified"], row.checked_files))
    assert progress == [(0, 1), (0, 2), (1, 0)]


class _OneItem(Budget):
    """Time for one look at the clock."""

    def __init__(self) -> None:
        super().__init__(ALWAYS)
        object.__setattr__(self, "_looks", iter([False]))

    __slots__ = ("_looks",)

    @property
    def is_spent(self) -> bool:
        return next(self._looks, True)


async def test_retention_counts_in_a_dry_run_and_removes_what_the_policy_lets_go(world, ground: Ground) -> None:  # type: ignore[no-untyped-def]
    run_id, attempt_id = await started(world)
    async with transaction(ground.sessions) as session:
        attempt = await query.attempt_row(session, attempt_id)
        await logs.append(session, ground.objects, attempt, 0, 0, b"line\n")
        batch = MetricBatch(series={"train/loss": Series(steps=[1, 2], values=[2.0, 1.0], at=[1.0, 2.0])})
        await metrics.ingest(session, project_id="default", run_id=run_id, attempt_id=attempt_id, batch=batch)
        await identity.mint_attempt_token(session, project_id="default", attempt_id=attempt_id, now=world.clock.now())
    key, _ = await world.commit(attempt_id, "files", "old")
    await world.end(attempt_id)
    async with transaction(ground.sessions) as session:
        await session.execute(text("UPDATE artifacts SET deleted_at = :now"), {"now": world.clock.now()})
        await session.execute(text("UPDATE outbox SET sent_at = :now"), {"now": world.clock.now()})
        insert = "INSERT INTO idempotency_keys (project_id, actor, key, body_hash, status, response, created_at) VALUES ('default', 'a', 'k', '', 200, '', :now)"
        await session.execute(text(insert), {"now": world.clock.now()})
    everything = RetentionPolicy(log_days=100, metric_days=100, token_days=100)
    settings = ground.settings.model_copy(update={"retention": everything})
    ground = Ground(ground.sessions, ground.objects, settings, world.clock)
    assert set((await retention.preview(ground)).values()) == {0}
    world.clock.turn(200 * DAY)
    expected = {
        "log_chunks": 1,
        "metric_attempts": 1,
        "artifacts": 1,
        "idempotency_keys": 1,
        "outbox": 2,
        "deliveries": 0,
        "tokens": 1,
    }
    assert await retention.preview(ground) == expected
    assert await retention.preview(ground) == expected, "a dry run changes nothing"
    assert await count(ground, "log_chunks") == 1
    outcome = await retention.retain(ground, Budget(ALWAYS))
    assert outcome.facts == {name: number for name, number in expected.items() if number}
    assert set((await retention.preview(ground)).values()) == {0}
    for name in ("log_chunks", "metric_points", "metric_tiers", "idempotency_keys", "outbox", "tokens"):
        assert await count(ground, name) == 0, name
    assert list(ground.objects.list("projects/default")) == []
    [row] = await rows(ground)
    assert row.purged_at is not None
    assert not ground.objects.exists(key)


async def test_retention_leaves_alone_what_is_young_running_shared_or_kept_for_ever(world, ground: Ground) -> None:  # type: ignore[no-untyped-def]
    _, attempt_id = await started(world)
    async with transaction(ground.sessions) as session:
        attempt = await query.attempt_row(session, attempt_id)
        await logs.append(session, ground.objects, attempt, 0, 0, b"line\n")
    kept, _ = await world.commit(attempt_id, "files", "kept", "the same content")
    gone, _ = await world.commit(attempt_id, "files", "gone", "the same content")
    world.clock.turn(400 * DAY)
    forever = await retention.preview(ground)
    assert "log_chunks" not in forever, "the default keeps logs and metrics for ever"
    policy = RetentionPolicy(log_days=1, metric_days=1)
    strict = Ground(
        ground.sessions, ground.objects, ground.settings.model_copy(update={"retention": policy}), world.clock
    )
    assert (await retention.preview(strict))["log_chunks"] == 0, "the run goes on"
    await world.end(attempt_id)
    async with transaction(ground.sessions) as session:
        await session.execute(
            text("UPDATE artifacts SET deleted_at = :now WHERE name = 'gone'"), {"now": world.clock.now()}
        )
    world.clock.turn(10 * DAY)
    await retention.retain(strict, Budget(ALWAYS))
    assert not ground.objects.exists(gone)
    assert read_manifest(ground.objects, kept).files
    world.clock.turn(31 * DAY)
    assert (await artifacts.verify(strict, Budget(ALWAYS))).facts == {"verified": 1, "corrupt": 0}


async def test_a_run_is_exported_with_curves_recipe_events_and_report(world, ground: Ground) -> None:  # type: ignore[no-untyped-def]
    run_id, attempt_id = await started(world)
    async with transaction(ground.sessions) as session:
        nan = float("nan")
        batch = MetricBatch(series={"train/loss": Series(steps=[1, 2, 3], values=[2.0, nan, 1.0], at=[1.0, 2.0, 3.0])})
        await metrics.ingest(session, project_id="default", run_id=run_id, attempt_id=attempt_id, batch=batch)
    await world.commit(attempt_id, "report", "report", "all is well")
    await world.end(attempt_id)
    async with transaction(ground.sessions, ["default"]) as session:
        asked = await exports.request(session, run_id, now=world.clock.now())
    await steps.handle_messages(ground, Budget(ALWAYS))
    [row] = [r for r in await rows(ground) if r.kind == "export"]
    assert (row.name, row.run_id, row.stage_id) == (asked.name, run_id, "work")
    manifest = read_manifest(ground.objects, row.manifest_key)
    files = {e.path: ground.objects.path(blob_key(prefix_of(row.manifest_key), e.digest)) for e in manifest.files}
    assert json.loads(files["run.json"].read_text())["id"] == run_id
    assert files["recipe.toml"].read_text() == ONE_STAGE
    assert files["report/work/file.txt"].read_text() == "all is well"
    assert '"artifact.created"' in files["events.jsonl"].read_text()
    curves = pyarrow.parquet.read_table(files["metrics.parquet"]).to_pydict()
    assert (curves["key"], curves["step"], curves["value"]) == (["train/loss"] * 3, [1, 2, 3], [2.0, None, 1.0])
    [board] = [
        path for name, path in files.items() if name.startswith(f"tensorboard/{attempt_id}/events.out.tfevents.")
    ]
    assert scalars(board) == [("train/loss", 1, 2.0), ("train/loss", 3, 1.0)]


async def test_an_export_whose_worker_died_after_the_commit_is_recorded_and_not_made_twice(
    world, ground: Ground
) -> None:  # type: ignore[no-untyped-def]
    run_id, attempt_id = await started(world)
    await world.end(attempt_id)
    async with transaction(ground.sessions, ["default"]) as session:
        await exports.request(session, run_id, now=world.clock.now())
    async with ground.sessions() as session:
        [message] = [m for m in await rows(ground, OutboxRow) if m.kind == exports.KIND]
        await exports.export(ground, session, message)
        await session.rollback()  # the worker dies before its transaction is committed
    assert [r for r in await rows(ground) if r.kind == "export"] == []
    await steps.handle_messages(ground, Budget(ALWAYS))
    assert len([r for r in await rows(ground) if r.kind == "export"]) == 1


async def test_a_run_that_has_not_begun_has_nothing_to_export(world, ground: Ground) -> None:  # type: ignore[no-untyped-def]
    run_id = await world.submit(ONE_STAGE)
    async with transaction(ground.sessions, ["default"]) as session:
        with pytest.raises(Conflict, match="nothing to export"):
            await exports.request(session, run_id, now=world.clock.now())


async def test_gauges_tell_the_state_with_few_labels(world, ground: Ground) -> None:  # type: ignore[no-untyped-def]
    run_id, attempt_id = await started(world)
    await world.do(
        lambda session, now: session.execute(
            text("UPDATE attempts SET state = 'running', started_at = :now, held_at = :now, pool = 'h800', gpus = 8"),
            {"now": now},
        )
    )
    async with transaction(ground.sessions) as session:
        batch = MetricBatch(series={key: Series(steps=[1], values=[2.5], at=[1.0]) for key in gauges.TRAINING_KEYS})
        await metrics.ingest(session, project_id="default", run_id=run_id, attempt_id=attempt_id, batch=batch)
    world.clock.turn(60)
    async with transaction(ground.sessions) as session:
        found = {f.name: dict(f.samples) for f in await gauges.read(session, now=world.clock.now())}
    assert found["abruzzi_runs"] == {("running",): 1.0}
    assert found["abruzzi_training_loss"] == {(run_id, "work"): 2.5}
    assert found["abruzzi_training_tokens_per_second"] == {(run_id, "work"): 2.5}
    assert found["abruzzi_attempt_seconds"] == {("container", "running"): 60.0}
    assert found["abruzzi_gpu_seconds"] == {("h800", "running"): 480.0}
    assert found["abruzzi_outbox_messages"] == {("waiting",): 1.0, ("quarantined",): 0.0}
    assert found["abruzzi_queue_depth"] == {}
    assert {len(f.labels) for f in await _read(ground)} <= {0, 1, 2}


async def _read(ground: Ground) -> list[gauges.Family]:
    async with transaction(ground.sessions) as session:
        return await gauges.read(session, now=ground.clock.now() + timedelta(seconds=1))


def scalars(path: Path) -> list[tuple[str, int, float]]:
    """By a reader of its own: frames with their checksums, then the few fields of the messages."""
    data, found = path.read_bytes(), []
    while data:
        (length,), message = struct.unpack("<Q", data[:8]), data[12 : 12 + struct.unpack("<Q", data[:8])[0]]
        for content, sum_ in ((data[:8], data[8:12]), (message, data[12 + length : 16 + length])):
            crc = crc32c(content)
            assert struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF) == sum_
        data = data[16 + length :]
        fields = _fields(message)
        if 5 in fields:
            value = _fields(_fields(fields[5])[1])
            found.append((value[1].decode(), fields.get(2, 0), struct.unpack("<f", value[2])[0]))
    return found


def _fields(message: bytes) -> dict[int, Any]:
    """{field number: varint, fixed bytes, or content} of a protocol buffer."""
    found: dict[int, Any] = {}
    position = 0
    while position < len(message):
        number, wire = message[position] >> 3, message[position] & 7
        position += 1
        if wire == 0 or wire == 2:
            shift = value = 0
            while True:
                byte = message[position]
                position, value, shift = position + 1, value | (byte & 0x7F) << shift, shift + 7
                if byte < 0x80:
                    break
            found[number] = value if wire == 0 else message[position : position + value]
            position += 0 if wire == 0 else value
        else:
            size = 8 if wire == 1 else 4
            found[number] = message[position : position + size]
            position += size
    return found


def test_the_checksum_is_that_of_rfc_3720() -> None:
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(b"123456789") == 0xE3069283


async def test_a_run_that_was_rung_a_minute_ago_is_a_minute_late_and_not_years(world, ground: Ground) -> None:  # type: ignore[no-untyped-def]
    run_id, _ = await started(world)
    await world.store.wake([run_id])
    world.clock.turn(60)
    async with transaction(ground.sessions) as session:
        found = {f.name: dict(f.samples) for f in await gauges.read(session, now=world.clock.now())}
    assert found["abruzzi_controller_lag_seconds"][()] == 60.0
