"""GPU-hours by cause over a real Postgres: recorded as it happens, the same with and without the roll-up, and each project sees its own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import httpx
import psycopg
import pytest
from api_server import ApiServer, serve
from sqlalchemy import text
from typer.testing import CliRunner

from abruzzi.cli.main import app
from abruzzi.contracts.metric import Heartbeat
from abruzzi.contracts.pool import Amounts, PoolSpec
from abruzzi.contracts.states import AttemptState, Role, RunState
from abruzzi.contracts.usage import HELD, By, UsageOut
from abruzzi.engine.view import Phase, Seen
from abruzzi.kit.db import transaction
from abruzzi.kit.ground import Budget, Ground
from abruzzi.kit.settings import Settings
from abruzzi.pools import service as pools
from abruzzi.runs import heartbeat, steer
from abruzzi.usage import service, tasks
from abruzzi.workers import steps

GPUS = """
version = 1
name = "gpus"

[[stage]]
id = "work"
kind = "container"
[stage.container]
command = ["true"]
[stage.resources]
pool = "h800"
ranks = 2
"""
H800 = PoolSpec(name="h800", kind="kubernetes", rank=Amounts(cpus=12.0, memory=1 << 30, gpus=4))


@pytest.fixture
async def h800(world: Any) -> None:
    await world.do(pools.apply, H800, expected_version=None, actor="me")


def ground(world: Any) -> Ground:
    return Ground(world.sessions, world.objects, Settings(), world.clock)


async def read(world: Any, by: By = By.CAUSE) -> UsageOut:
    return await world.do(service.usage, from_day=date(2025, 12, 1), to_day=date(2026, 3, 1), by=by)


async def beat(world: Any, attempt_id: str, rank: int, step: int, phase: str) -> None:
    told = Heartbeat(rank=rank, step=step, phase=phase, at=world.clock.now().timestamp())
    await world.do(heartbeat.record, attempt_id, told)


async def work(world: Any, attempt_id: str, **phases: float) -> None:
    """Both ranks, phase after phase. The last phase goes on."""
    for number, (phase, seconds) in enumerate(phases.items()):
        for rank in (0, 1):
            await beat(world, attempt_id, rank, number, phase)
        world.clock.turn(seconds)


async def commit(world: Any, attempt_id: str) -> None:
    """A checkpoint that is committed now, by the world's clock."""
    await world.commit(attempt_id, "checkpoint", "step-00000100", step=100)
    [lease] = await world.lease()
    assert await world.store.collect_artifacts(lease, attempt_id) == 1
    await world.store.release(lease, wake_at=world.clock.now().timestamp())
    async with transaction(world.sessions) as session:
        await session.execute(
            text("UPDATE artifacts SET created_at = :now WHERE attempt_id = :attempt"),
            {"now": world.clock.now(), "attempt": attempt_id},
        )


async def lived(world: Any) -> str:
    """Queued 60 s, then held: an attempt that is killed 30 s after its checkpoint, another that ends well."""
    world.born = Seen(Phase.PENDING, reason="It waits in queue 'h800'.")
    run_id = await world.submit(GPUS)
    first, second = f"{run_id}-work-1", f"{run_id}-work-2"
    await world.steps(run_id)
    held = world.clock.turn(60).timestamp()
    world.seen[first] = Seen(Phase.PENDING, reason="Its image is being pulled.", held_since=held)
    await world.steps(run_id)
    world.clock.turn(20)
    world.seen[first] = Seen(Phase.RUNNING, held_since=held)
    await world.steps(run_id)
    await work(world, first, setup=10, train=100, save=5)
    await commit(world, first)
    await work(world, first, train=30)
    world.born = Seen(Phase.RUNNING)
    world.seen[first] = Seen(Phase.EXITED, exit_code=3)
    await world.steps(run_id)
    world.clock.turn(60)
    await world.steps(run_id)
    async with transaction(world.sessions) as session:
        assert (await world.store.spec(second)).attempt_id == second
        del session
    await world.steps(run_id)
    await work(world, second, load=10, train=50)
    world.seen[second] = Seen(Phase.EXITED, exit_code=0)
    await world.steps(run_id)
    assert (await world.get(run_id)).state is RunState.SUCCEEDED
    return run_id


async def test_what_happened_is_accounted_in_gpu_hours_and_sums_to_what_was_held(world: Any, h800: None) -> None:
    run_id = await lived(world)
    total = (await read(world)).total
    seconds = {cause.value: round(getattr(total.causes, cause.value).gpu * 3600 / 8, 3) for cause in HELD}
    assert seconds == {
        "train": 150, "checkpoint": 5, "start_up": 20 + 10 + 10, "hang": 0, "lost_work": 30, "idle": 0,
    }  # fmt: skip
    assert total.held.gpu * 3600 == pytest.approx(8 * 225)
    assert total.held.cpu * 3600 == pytest.approx(24 * 225)
    assert total.queue.gpu * 3600 == pytest.approx(8 * 60)
    attempt = (await world.get(run_id)).detail[0].attempts[0]
    assert attempt.state is AttemptState.FAILED


@pytest.mark.parametrize("by", list(By))
async def test_the_roll_up_changes_no_answer(world: Any, h800: None, by: By) -> None:
    await lived(world)
    running = await world.submit(GPUS)
    await world.steps(running)
    await work(world, f"{running}-work-1", setup=10, train=100)
    live = await read(world, by)
    assert (await tasks.roll_up(ground(world), Budget(1e9))).facts == {"runs": 1}
    rolled = await read(world, by)
    assert rolled == live
    assert (await tasks.roll_up(ground(world), Budget(1e9))).facts == {"runs": 0}


async def test_a_run_that_is_retried_is_counted_anew_and_rolled_up_again(world: Any, h800: None) -> None:
    world.born = Seen(Phase.RUNNING)
    run_id = await world.submit(GPUS)
    await world.steps(run_id)
    await work(world, f"{run_id}-work-1", train=100)
    world.seen[f"{run_id}-work-1"] = Seen(Phase.EXITED, exit_code=64)
    await world.steps(run_id)
    await tasks.roll_up(ground(world), Budget(1e9))
    before = (await read(world)).total
    assert (before.causes.train.gpu * 3600, before.causes.lost_work.gpu) == (pytest.approx(800), 0)
    await world.do(steer.retry, run_id, None)
    await world.steps(run_id)
    await world.store.spec(f"{run_id}-work-2")
    during = (await read(world)).total
    assert (during.causes.train.gpu, during.causes.lost_work.gpu * 3600) == (0, pytest.approx(800))
    world.seen[f"{run_id}-work-2"] = Seen(Phase.EXITED, exit_code=0)
    await world.steps(run_id)
    live = await read(world)
    assert (await tasks.roll_up(ground(world), Budget(1e9))).facts == {"runs": 1}
    assert await read(world) == live


async def test_a_pool_that_changes_later_changes_nothing_that_was_used(world: Any, h800: None) -> None:
    await lived(world)
    before = await read(world, By.POOL)
    doubled = H800.model_copy(update={"rank": Amounts(cpus=1.0, memory=1 << 30, gpus=8)})
    await world.do(pools.apply, doubled, expected_version=None, actor="me")
    assert await read(world, By.POOL) == before


async def test_the_roll_up_is_a_chore_like_the_others(world: Any, h800: None) -> None:
    world.clock.moment = datetime(2026, 1, 1, tzinfo=UTC)
    await lived(world)
    there = ground(world)
    assert "usage" in (await steps.look(there)).chores
    outcome = await steps.run_chore(there, "usage")
    assert outcome is not None
    assert outcome.facts == {"runs": 1}


# Over REST, and on the command line


@pytest.fixture(scope="module")
def server(shared_database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:  # type: ignore[no-untyped-def]
    with serve(shared_database.url("app"), shared_database.url("superuser"), tmp_path_factory.mktemp("api")) as made:
        for project, hours in (("default", 1), ("tenant", 2)):
            made.token(Role.VIEWER, project=project)
            run_id, attempt_id = made.run_with_attempt(project)
            with psycopg.connect(made.owner_url, autocommit=True) as connection:
                connection.execute(
                    "UPDATE attempts SET pool = 'h800', gpus = 8, cpus = 96, state = 'succeeded', held_at = timestamptz '2026-11-20 10:00Z', "
                    "created_at = timestamptz '2026-11-20 09:30Z', started_at = timestamptz '2026-11-20 10:00Z', "
                    "ended_at = timestamptz '2026-11-20 10:00Z' + make_interval(hours => %s) WHERE id = %s",
                    (hours, attempt_id),
                )
                connection.execute("UPDATE runs SET name = %s WHERE id = %s", (f"=run of {project}", run_id))
        yield made


def get(server: ApiServer, token: str | None = None, **query: str) -> httpx.Response:
    with server.client(token) as client:
        return client.get("usage", params={"from": "2026-11-01", "to": "2026-11-30", **query})


def test_a_project_sees_its_own_and_the_platforms_admins_see_all(server: ApiServer) -> None:
    tenant = get(server, server.token(Role.VIEWER, project="tenant")).json()
    assert [(row["key"], row["held"]["gpu"], row["queue"]["gpu"]) for row in tenant["items"]] == [("tenant", 16, 4)]
    viewer = get(server, server.token(Role.VIEWER, project="default")).json()
    assert [row["key"] for row in viewer["items"]] == ["default"]
    everybody = get(server).json()
    assert [(row["key"], row["held"]["gpu"]) for row in everybody["items"]] == [("tenant", 16), ("default", 8)]
    assert everybody["total"]["held"] == {"gpu": 24, "cpu": 288}
    assert get(server, server.token(Role.ADMIN, project="tenant")).json()["total"]["held"]["gpu"] == 16


def test_one_pool_is_asked_for_by_its_name(server: ApiServer) -> None:
    assert get(server, pool="h800").json()["total"]["held"]["gpu"] == 24
    assert get(server, pool="a100").json()["items"] == []
    assert get(server, pool="a100", format="csv").text.count("\n") == 1


def test_csv_is_asked_for_by_accept_or_by_name_and_holds_the_same(server: ApiServer) -> None:
    token = server.token(Role.VIEWER, project="tenant")
    named = get(server, token, by="run", format="csv")
    assert named.headers["content-type"].startswith("text/csv")
    with server.client(token) as client:
        query = {"from": "2026-11-01", "to": "2026-11-30", "by": "run"}
        assert client.get("usage", params=query, headers={"Accept": "text/csv"}).text == named.text
    [row] = csv.DictReader(io.StringIO(named.text))
    assert (row["name"], row["gpu_hours_held"], row["gpu_hours_train"]) == ("'=run of tenant", "16.000000", "16.000000")


@pytest.mark.parametrize(
    "query",
    [{"from": "2026-11-30", "to": "2026-11-01"}, {"from": "1900-01-01"}, {"by": "colour"}, {"from": "yesterday"}],
)
def test_a_span_or_a_group_that_there_is_not_is_refused(server: ApiServer, query: dict[str, str]) -> None:
    assert get(server, **query).status_code == 422


def test_the_command_prints_a_table_json_and_csv(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABRUZZI_URL", server.url)
    monkeypatch.setenv("ABRUZZI_TOKEN", server.admin)
    asked = ["usage", "--from", "2026-11-01", "--to", "2026-11-30"]
    table = CliRunner().invoke(app, asked)
    assert table.exit_code == 0, table.output
    assert "GPU-hours" in table.output
    assert "tenant" in table.output
    as_json = CliRunner().invoke(app, [*asked, "--by", "cause", "--json"])
    assert [row["key"] for row in json.loads(as_json.output)["items"]] == ["train", "queue"]
    as_csv = CliRunner().invoke(app, [*asked, "--by", "pool", "--csv"])
    assert as_csv.output.splitlines()[1].split(",")[3] == "h800"
    assert CliRunner().invoke(app, ["usage", "--from", "soon"]).exit_code == 2
