"""Backups restore to the same state: every row and every object, out of a platform that runs, into an empty one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import database_rows
import psycopg
import pytest
from psycopg import sql
from s3_server import S3Server

from abruzzi.backup import service, tables
from abruzzi.backup.service import Backup
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.stage import S3Store as S3Config
from abruzzi.kit.db import transaction
from abruzzi.logs import service as logs
from abruzzi.runs import query
from abruzzi.store import DirectoryStore, ObjectStore, blob_key, pin_artifact, prefix_of
from abruzzi.store.s3 import S3Store
from abruzzi_operators.supervisor.embedded import EmbeddedPlatform

Database = Any
"""As the fixture `database`: addresses and connections by role."""
NOW = datetime(2026, 11, 26, 3, 0, tzinfo=UTC)
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
def empty(database: Database):
    """A second database, without tables."""
    name = f"{database.name}_restored"
    with psycopg.connect(database.server.dsn("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER abruzzi_owner").format(sql.Identifier(name)))
        yield type(database)(name, database.server)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


async def log(world: Any, attempt_id: str, offset: int, text: bytes) -> str | None:
    """The key of the object that it replaced."""
    async with transaction(world.sessions) as session:
        attempt = await query.attempt_row(session, attempt_id)
        appended = await logs.append(session, world.objects, attempt, 0, offset, text)
    if appended.replaced_key:
        world.objects.delete(appended.replaced_key)
    return appended.replaced_key


async def filled(world: Any) -> tuple[str, str]:
    """(attempt, manifest's key): a run with two artifacts, one of them pinned, a log and events."""
    run_id = await world.submit(ONE_STAGE)
    await world.steps(run_id)
    attempt_id = f"{run_id}-work-1"
    key, _ = await world.commit(attempt_id, "files", "results")
    await world.commit(attempt_id, "checkpoint", "step-1", step=1)
    await log(world, attempt_id, 0, b"first line\nsecond line\n")
    await world.end(attempt_id)
    await world.steps(run_id)
    pin_artifact(world.objects, key, "another")
    return attempt_id, key


def create(folder: Path, database: Database, store: ObjectStore, now: datetime = NOW) -> tuple[Path, Backup]:
    return service.create(folder, database.url("owner"), store, now=now)


def restore(backup: Path, database: Database, store: ObjectStore, **more: Any) -> Backup:
    roles = {f"abruzzi_{role}": database.url(role) for role in ("app", "controller")}
    return service.restore(backup, database.url("owner"), store, role_urls=roles, **more)


def rows(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    with database.connect("superuser") as connection:
        return database_rows.rows(connection)


def contents(store: ObjectStore) -> dict[str, bytes]:
    return {key: store.get(key) for key in store.list("projects/")}


async def test_a_restored_platform_has_every_row_and_every_object(
    world, database: Database, empty: Database, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    await filled(world)
    path, made = create(tmp_path / "backups", database, world.objects)
    assert path.name == "abruzzi-20261126T030000Z"
    assert (made.damaged, made.gone, made.objects) == ((), (), len(contents(world.objects)))
    assert made.tables["runs"].rows == 1
    target = DirectoryStore(tmp_path / "restored")
    assert restore(path, empty, target) == made
    assert rows(empty) == rows(database)
    assert contents(target) == contents(world.objects)


async def test_what_happens_after_a_restore_comes_after_what_was_restored(
    world, database: Database, empty: Database, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    """Positions of events are transaction ids, and another server's mean nothing here; identity columns go on where they were."""
    await filled(world)
    with database.connect("superuser") as connection:
        connection.execute("UPDATE events SET id = id + (1::bigint << 45)")  # as of a server that was much busier
    path, _ = create(tmp_path, database, world.objects)
    restore(path, empty, DirectoryStore(tmp_path / "restored"))
    with empty.connect("controller") as connection:
        before = connection.execute("SELECT max(id), max(xid::text::bigint), count(*) FROM events").fetchone()
        connection.execute("INSERT INTO events (project_id, kind, body) VALUES ('default', 'later', '{}')")
        after = connection.execute("SELECT id FROM events WHERE kind = 'later'").fetchone()
        visible = connection.execute(
            "SELECT count(*) FROM events WHERE xid < pg_snapshot_xmin(pg_current_snapshot())"
        ).fetchone()
        connection.execute(
            "INSERT INTO audit (project_id, actor, action, object, outcome) VALUES ('default', 'me', 'a', 'o', 'allowed')"
        )
    assert before
    assert after
    assert visible
    assert 0 < before[0] < after[0]
    assert visible[0] >= before[2], "readers see what was restored at once"


async def test_row_level_security_and_triggers_hold_after_a_restore_as_before(
    world, database: Database, empty: Database, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    await filled(world)
    path, _ = create(tmp_path, database, world.objects)
    restore(path, empty, DirectoryStore(tmp_path / "restored"))
    query = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relforcerowsecurity ORDER BY 1"
    )
    with database.connect("owner") as one, empty.connect("owner") as other:
        assert other.execute(query).fetchall() == one.execute(query).fetchall() != []
        disabled = other.execute("SELECT count(*) FROM pg_trigger WHERE tgenabled = 'D'").fetchone()
        assert disabled == (0,)
    with empty.connect("app") as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (0,), "no project was named"


def test_the_owner_may_read_every_table_whole(database: Database) -> None:
    """Row-level security is forced on it, too: without a policy of its own, COPY would leave rows out and say nothing."""
    query = """SELECT relname FROM pg_class c WHERE relnamespace = 'public'::regnamespace AND relforcerowsecurity AND NOT EXISTS (
                 SELECT 1 FROM pg_policy p WHERE p.polrelid = c.oid AND 'abruzzi_owner'::regrole = ANY (p.polroles)
                 AND p.polcmd = '*' AND pg_get_expr(p.polqual, c.oid) = 'true')"""
    with database.connect("owner") as connection:
        assert connection.execute(query).fetchall() == []


async def test_a_log_that_grows_while_it_is_copied_is_kept_as_it_was(
    world, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    run_id = await world.submit(ONE_STAGE)
    await world.steps(run_id)
    await log(world, f"{run_id}-work-1", 0, b"before\n")
    [chunk] = contents(world.objects)
    seen = service.objects.named

    def and_then_it_grew(connection: psycopg.Connection) -> Any:
        """As an append between the snapshot and the copying would do it."""
        what = seen(connection)
        longer = chunk.replace("000000000000007", "000000000000013")
        world.objects.put(longer, b"before\nafter\n")
        world.objects.delete(chunk)
        with database.connect("superuser") as other:
            other.execute("UPDATE log_chunks SET end_offset = 13, object_key = %s", [longer])
        return what

    monkeypatch.setattr(service.objects, "named", and_then_it_grew)
    path, made = create(tmp_path / "backups", database, world.objects)
    assert made.damaged == ()
    assert contents(DirectoryStore(path / "objects")) == {chunk: b"before\n"}


async def test_what_retention_removes_meanwhile_is_restored_as_deleted(
    world, database: Database, empty: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    _, key = await filled(world)
    seen = service.objects.named

    def and_then_it_went(connection: psycopg.Connection) -> Any:
        what = seen(connection)
        world.objects.delete(key)
        with database.connect("superuser") as other:
            other.execute("UPDATE artifacts SET deleted_at = now() WHERE manifest_key = %s", [key])
        return what

    monkeypatch.setattr(service.objects, "named", and_then_it_went)
    path, made = create(tmp_path / "backups", database, world.objects)
    assert (made.gone, made.damaged) == ((key,), ())
    restore(path, empty, DirectoryStore(tmp_path / "restored"))
    with empty.connect("superuser") as connection:
        deleted = connection.execute("SELECT manifest_key FROM artifacts WHERE deleted_at IS NOT NULL").fetchall()
    assert deleted == [(key,)]


@pytest.mark.parametrize("damage", ["changed", "gone"])
async def test_what_the_store_had_lost_is_named_and_the_rest_is_kept(
    world, database: Database, tmp_path: Path, damage: str
) -> None:  # type: ignore[no-untyped-def]
    _, key = await filled(world)
    [entry] = [entry for entry in service.objects.read_manifest(world.objects, key).files]
    blob = world.objects.path(blob_key(prefix_of(key), entry.digest))
    blob.write_bytes(b"x") if damage == "changed" else blob.unlink()
    path, made = create(tmp_path / "backups", database, world.objects)
    assert key in {sentence.partition(": ")[0] for sentence in made.damaged}
    assert len(made.damaged) == 2, "two artifacts have this file"
    assert list(service.verify(path)) == [], "what it has is whole"


@pytest.mark.parametrize("part", ["table", "object", "list", "description"])
async def test_a_damaged_backup_is_refused_before_anything_is_written(
    world, database: Database, empty: Database, tmp_path: Path, part: str
) -> None:  # type: ignore[no-untyped-def]
    await filled(world)
    path, _ = create(tmp_path / "backups", database, world.objects)
    victim = {
        "table": path / "tables" / "runs.copy.gz",
        "object": next(each for each in (path / "objects").rglob("*") if each.is_file()),
        "list": path / "objects.jsonl",
        "description": path / "backup.json",
    }[part]
    content = victim.read_bytes()
    victim.write_bytes(content[: len(content) // 2])
    target = DirectoryStore(tmp_path / "restored")
    with pytest.raises(AbruzziError) as refused:
        restore(path, empty, target)
    assert refused.value.code == "corrupt_backup"
    assert contents(target) == {}
    with empty.connect("owner") as connection:
        assert tables.revision(connection) is None


async def test_what_is_there_already_is_not_overwritten_unless_told_so(
    world, database: Database, empty: Database, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    await filled(world)
    path, _ = create(tmp_path / "backups", database, world.objects)
    before = rows(database)
    await world.submit(ONE_STAGE)
    with pytest.raises(AbruzziError, match="holds runs") as refused:
        restore(path, database, DirectoryStore(tmp_path / "restored"))
    assert refused.value.code == "not_empty"
    with pytest.raises(AbruzziError, match="object store holds objects"):
        restore(path, empty, world.objects)
    restore(path, database, world.objects, overwrite=True)
    assert rows(database) == before


async def test_a_backup_of_a_schema_that_nobody_here_knows_is_refused(
    world, database: Database, empty: Database, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    path, made = create(tmp_path, database, world.objects)
    newer = made.model_copy(update={"revision": "9999"})
    (path / "backup.json").write_text(newer.model_dump_json())
    with pytest.raises(AbruzziError, match="does not know") as refused:
        restore(path, empty, DirectoryStore(tmp_path / "restored"))
    assert refused.value.code == "newer_backup"


async def test_a_backup_of_an_older_schema_ends_with_the_newest(
    world, database: Database, empty: Database, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    """Pools came with migration 0006; a backup of 0005 has none."""
    from abruzzi import migrations

    migrations.upgrade(empty.url("owner"), to="0005")
    path, made = create(tmp_path, empty, world.objects)
    assert "pools" not in made.tables
    with pytest.raises(AbruzziError) as refused:
        restore(path, database, DirectoryStore(tmp_path / "restored"))
    assert refused.value.code == "other_schema"
    with empty.connect("superuser") as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public AUTHORIZATION abruzzi_owner")
    restore(path, empty, DirectoryStore(tmp_path / "restored"))
    with empty.connect("owner") as one, database.connect("owner") as other:
        assert tables.revision(one) == tables.revision(other)


def test_only_whole_backups_count_and_the_newest_are_kept(database: Database, tmp_path: Path) -> None:
    store, folder = DirectoryStore(tmp_path / "store"), tmp_path / "backups"
    made = [create(folder, database, store, NOW.replace(hour=hour))[0] for hour in (1, 2, 3)]
    (folder / "abruzzi-20261126T040000Z").mkdir()  # of somebody else
    assert service.expire(folder, keep=2) == [made[0]]
    assert sorted(path.name for path in folder.iterdir()) == [
        *(path.name for path in made[1:]),
        "abruzzi-20261126T040000Z",
    ]
    with pytest.raises(AbruzziError, match="no backup"):
        service.read(folder / "abruzzi-20261126T040000Z")
    with pytest.raises(AbruzziError, match="is there already"):
        create(folder, database, store, NOW)


@pytest.mark.s3
async def test_from_a_directory_to_s3_and_back(world, database: Database, empty: Database, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    await filled(world)
    path, _ = create(tmp_path / "backups", database, world.objects)
    with S3Server(real=True) as server:
        bucket = S3Store(S3Config(endpoint=server.endpoint, bucket="restored", secure=False))
        restore(path, empty, bucket)  # which makes the bucket
        assert contents(bucket) == contents(world.objects)
        again, _ = create(tmp_path / "again", empty, bucket)
        assert contents(DirectoryStore(again / "objects")) == contents(world.objects)


TRAINED = """
version = 1
name = "kept"

[[stage]]
id = "corpus"
kind = "corpus"
[stage.data]
sources = ["pycountry"]
max_bytes = "100 KB"
"""


def abruzzi(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "abruzzi"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.slow
def test_the_command_takes_a_home_away_while_it_runs_and_puts_it_elsewhere(tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    with EmbeddedPlatform(home) as platform:
        ran = subprocess.run(
            [str(Path(sys.executable).parent / "abruzzi"), "run", "-", "--wait"],
            input=TRAINED, text=True, capture_output=True, check=False, timeout=600,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ABRUZZI_URL": platform.url, "ABRUZZI_TOKEN": platform.token},
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr
        made = abruzzi("backup", "create", tmp_path / "backups", "--home", home, "--json")
        assert made.returncode == 0, made.stdout + made.stderr
        answer = json.loads(made.stdout)
        assert answer["rows"]["runs"] == 1
        assert answer["objects"] > 2
        refused = abruzzi("backup", "restore", answer["path"], "--home", home)
        assert refused.returncode == 1
        assert "runs in" in refused.stderr
    shutil.rmtree(home)
    assert "Whole" in abruzzi("backup", "verify", answer["path"]).stdout
    restored = abruzzi("backup", "restore", answer["path"], "--home", other)
    assert restored.returncode == 0, restored.stdout + restored.stderr
    with EmbeddedPlatform(other) as platform:
        listed = subprocess.run(
            [str(Path(sys.executable).parent / "abruzzi"), "runs", "list", "--json"],
            text=True, capture_output=True, check=True, timeout=600,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ABRUZZI_URL": platform.url, "ABRUZZI_TOKEN": platform.token},
        )  # fmt: skip
        [run] = json.loads(listed.stdout)
        assert (run["name"], run["state"]) == ("kept", "succeeded")
