"""Who waits in a pool, in which order and until when; why a run waits, with numbers; and of other projects no names, whoever asks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from api_server import ApiServer, serve
from sqlalchemy import text
from typer.testing import CliRunner

from abruzzi.cli.main import app
from abruzzi.contracts.metric import Heartbeat
from abruzzi.contracts.pool import UNSEEN, Amounts, PoolSpec
from abruzzi.contracts.queue import QueueOut
from abruzzi.contracts.reason import Reason
from abruzzi.contracts.states import Role
from abruzzi.contracts.why import WhyOut
from abruzzi.engine.view import Phase, Seen
from abruzzi.kit.db import Sessions, transaction
from abruzzi.pools import queue
from abruzzi.pools import service as pools
from abruzzi.pools.queue import Place
from abruzzi.runs import heartbeat
from abruzzi.runs.why import why

RECIPE = """
version = 1
name = "gang"

[[stage]]
id = "train"
kind = "container"
[stage.container]
command = ["true"]
[stage.resources]
pool = "h800"
ranks = 8
"""
H800 = PoolSpec(
    name="h800", kind="kubernetes", flavor="H800", ranks_per_node=8, rank=Amounts(cpus=1.0, memory=1 << 30, gpus=1),
    quota=Amounts(cpus=100.0, memory=1 << 40, gpus=12),
)  # fmt: skip
QUOTA = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor abruzzi-h800, 4 more needed"


class Gangs:
    """A pool of 12 GPUs: a gang of 8 runs, and as many more as a test wants wait for it."""

    def __init__(self, world: Any, app_sessions: Sessions) -> None:
        self.world, self.app_sessions = world, app_sessions
        self.waiting: list[str] = []

    async def start(self) -> str:
        await self.world.do(pools.apply, H800, expected_version=None, actor="me")
        self.world.born = Seen(Phase.RUNNING)
        run_id = await self.world.submit(RECIPE)
        await self.world.steps(run_id)
        return run_id

    async def wait(self, project: str, *, code: Reason = Reason.WAITS_FOR_QUOTA) -> str:
        async with transaction(self.world.sessions) as session:
            await session.execute(
                text("INSERT INTO projects (id, name) VALUES (:project, :project) ON CONFLICT DO NOTHING"),
                {"project": project},
            )
        self.world.born = Seen(Phase.PENDING, reason=f"It waits in queue 'h800': {QUOTA}.", waits_for=code)
        run_id = await self.world.submit(RECIPE, project_id=project)
        await self.world.steps(run_id)
        await self.world.steps(run_id)
        self.waiting.append(run_id)
        return run_id

    async def see(self, *, ordered_by: Any = "kueue", order: list[int] | None = None, used: float = 8) -> None:
        """What the pool controller writes."""
        ids = [f"{self.waiting[index]}-train-1" for index in order or range(len(self.waiting))]
        now = self.world.clock.now()
        places = [Place(attempt_id, number, now, ordered_by) for number, attempt_id in enumerate(ids, 1)]
        status = {**UNSEEN, "ready": True, "used": {"nvidia.com/gpu": used, "cpu": 8.0}, "observed_at": now.isoformat()}
        async with transaction(self.world.sessions) as session:
            await pools.observe(session, "h800", status)
            await queue.observe(session, "h800", places)

    async def beat(self, run_id: str, step: int) -> None:
        told = Heartbeat(rank=0, step=step, total_steps=100, phase="train", at=self.world.clock.now().timestamp())
        await self.world.do(heartbeat.record, f"{run_id}-train-1", told)

    async def queue(self, project: str, limit: int = 100) -> QueueOut:
        async with transaction(self.app_sessions, [project]) as session:
            return await queue.queue(session, "h800", now=self.world.clock.now(), limit=limit)

    async def why(self, project: str, run_id: str) -> WhyOut:
        async with transaction(self.app_sessions, [project]) as session:
            return await why(session, run_id, now=self.world.clock.now())


@pytest.fixture
def gangs(world: Any, app_sessions: Sessions) -> Gangs:
    return Gangs(world, app_sessions)


async def test_the_queue_is_in_kueues_order_and_others_have_figures_and_no_names(gangs: Gangs) -> None:
    await gangs.start()
    mine, theirs = await gangs.wait("ours"), await gangs.wait("theirs")
    await gangs.see(order=[1, 0])
    found = await gangs.queue("ours")
    assert (found.order, found.length, found.observed_at) == ("kueue", 2, gangs.world.clock.now())
    first, second = found.items
    assert (first.position, first.mine, first.gpus, first.ranks, first.code) == (1, False, 8, 8, Reason.WAITS_FOR_QUOTA)
    assert [first.project_id, first.run_id, first.run_name, first.stage_id, first.attempt_id, first.reason] == [
        None
    ] * 6
    assert (second.position, second.mine, second.run_id, second.run_name, second.stage_id) == (
        2,
        True,
        mine,
        "gang",
        "train",
    )
    assert theirs not in found.model_dump_json()
    assert "theirs" not in found.model_dump_json()
    assert [item.position for item in (await gangs.queue("ours", limit=1)).items] == [1]


async def test_ranks_that_queue_wait_and_those_that_hold_quota_run(gangs: Gangs) -> None:
    await gangs.start()
    await gangs.wait("ours")
    found = await gangs.world.do(_pool)
    assert (found.running_ranks, found.waiting_ranks) == (8, 8)


async def _pool(session: Any, *, now: Any) -> Any:
    return await pools.get(session, "h800", default="local")


async def test_who_is_let_in_is_no_longer_in_the_queue_whatever_the_pool_controller_saw(gangs: Gangs) -> None:
    await gangs.start()
    run_id = await gangs.wait("ours")
    await gangs.see()
    gangs.world.seen[f"{run_id}-train-1"] = Seen(
        Phase.PENDING, reason="Its image is being pulled.", held_since=gangs.world.clock.now().timestamp()
    )
    await gangs.world.steps(run_id)
    assert (await gangs.queue("ours")).items == []
    await gangs.see(order=[])
    assert (await gangs.queue("ours")).length == 0


async def test_why_names_position_quota_numbers_and_when(gangs: Gangs) -> None:
    running = await gangs.start()
    await gangs.beat(running, 10)
    gangs.world.clock.turn(60)
    await gangs.beat(running, 20)
    await gangs.wait("theirs")
    mine = await gangs.wait("ours")
    await gangs.see(order=[1, 0])
    told = await gangs.why("ours", mine)
    assert told.sentence == (
        "Stage 'train' can't run yet: It is number 1 of 2 in the queue of pool 'h800', asks for 8 GPUs, and 4 GPUs of 12 GPUs of quota are free "
        "(about 8 min to go: when the stage that holds quota has ended, by their pace so far). "
        f"It waits in queue 'h800': {QUOTA}."
    )
    [fact] = told.facts
    assert fact.code == Reason.WAITS_FOR_QUOTA
    wait = fact.waits_for
    assert wait is not None
    assert wait.free is not None
    assert (wait.position, wait.queue_length, wait.asked.gpus, wait.free.gpus) == (1, 2, 8, 4)
    assert wait.eta_seconds == pytest.approx(480)


async def test_who_is_behind_others_of_unknown_length_gets_no_estimate_and_is_told_why(gangs: Gangs) -> None:
    running = await gangs.start()
    await gangs.beat(running, 10)
    gangs.world.clock.turn(60)
    await gangs.beat(running, 20)
    await gangs.wait("theirs")
    mine = await gangs.wait("ours")
    await gangs.see()
    told = await gangs.why("ours", mine)
    assert "number 2 of 2" in told.sentence
    assert "(no estimate: nobody knows how long those ahead of it will take)" in told.sentence


async def test_nothing_that_runs_says_how_long_it_takes_so_there_is_no_estimate(gangs: Gangs) -> None:
    await gangs.start()
    mine = await gangs.wait("ours")
    await gangs.see(ordered_by="priority")
    assert "1 of the stages that hold quota does not say how long it takes" in (await gangs.why("ours", mine)).sentence
    assert (await gangs.queue("ours")).order == "priority"


@pytest.mark.parametrize("code", [Reason.WAITS_FOR_TOPOLOGY, Reason.WAITS_FOR_TAINT])
async def test_what_waits_for_more_than_quota_gets_no_estimate_from_quota(gangs: Gangs, code: Reason) -> None:
    await gangs.start()
    mine = await gangs.wait("ours", code=code)
    await gangs.see()
    told = await gangs.why("ours", mine)
    assert told.facts[0].code == code
    assert "it waits for more than quota" in told.sentence


async def test_numbers_that_contradict_kueue_are_not_believed(gangs: Gangs) -> None:
    await gangs.world.do(pools.apply, H800, expected_version=None, actor="me")
    mine = await gangs.wait("ours")
    await gangs.see(used=0)
    assert "Kueue says that it does not" in (await gangs.why("ours", mine)).sentence


async def test_an_image_that_can_not_be_pulled_is_the_reason_once_the_quota_is_there(gangs: Gangs) -> None:
    await gangs.world.do(pools.apply, H800, expected_version=None, actor="me")
    run_id = await gangs.wait("ours")
    said = "The image can't be pulled (ImagePullBackOff): no such host"
    held = gangs.world.clock.now().timestamp()
    gangs.world.seen[f"{run_id}-train-1"] = Seen(
        Phase.PENDING, reason=said, waits_for=Reason.WAITS_FOR_IMAGE, held_since=held
    )
    await gangs.world.steps(run_id)
    told = await gangs.why("ours", run_id)
    assert told.sentence == f"Stage 'train' can't run yet: {said}"
    wait = told.facts[0].waits_for
    assert wait is not None
    assert (wait.code, wait.position) == (Reason.WAITS_FOR_IMAGE, None)


# Over REST, and on the command line


@pytest.fixture(scope="module")
def server(shared_database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:  # type: ignore[no-untyped-def]
    with serve(shared_database.url("app"), shared_database.url("superuser"), tmp_path_factory.mktemp("api")) as made:
        yield made


def test_the_command_and_the_route_show_the_same_and_hide_the_same(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = server.token(Role.VIEWER, project="ours")
    server.token(Role.VIEWER, project="theirs")
    runs = {project: server.run_with_attempt(project)[0] for project in ("theirs", "ours")}
    with psycopg.connect(server.owner_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO pools (name, spec, updated_by, updated_at) VALUES ('h800', %s, 'me', now())",
            (H800.model_dump_json(),),
        )
        for run_id in runs.values():
            connection.execute(
                "UPDATE attempts SET state = 'starting', pool = 'h800', gpus = 8, cpus = 8, created_at = %s WHERE run_id = %s",
                (datetime(2026, 11, 26, tzinfo=UTC), run_id),
            )
            connection.execute("UPDATE runs SET name = %s WHERE id = %s", (f"secret-{run_id}", run_id))
    with server.client(ours) as client:
        answer = client.get("pools/h800/queue")
        assert client.get("pools/h9000/queue").status_code == 404
    assert {item["run_id"] for item in answer.json()["items"]} == {None, runs["ours"]}
    assert runs["theirs"] not in answer.text
    monkeypatch.setenv("ABRUZZI_URL", server.url)
    monkeypatch.setenv("ABRUZZI_TOKEN", ours)
    table = CliRunner().invoke(app, ["pools", "queue", "h800"])
    assert table.exit_code == 0, table.output
    assert runs["ours"] in table.output
    assert runs["theirs"] not in table.output
    assert "another project's" in table.output
    assert "8 GPUs" in table.output
    as_json = CliRunner().invoke(app, ["pools", "queue", "h800", "--json"])
    assert json.loads(as_json.output) | {"observed_at": None} == answer.json() | {"observed_at": None}


def test_the_commands_say_that_a_queued_run_is_pending_and_what_it_waits_for(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id, attempt_id = server.run_with_attempt("default")
    with psycopg.connect(server.owner_url, autocommit=True) as connection:
        connection.execute("UPDATE runs SET state = 'running' WHERE id = %s", (run_id,))
        connection.execute("UPDATE stages SET state = 'running' WHERE run_id = %s", (run_id,))
        connection.execute(
            "UPDATE attempts SET state = 'starting', reason = 'No node takes it.' WHERE id = %s", (attempt_id,)
        )
    monkeypatch.setenv("ABRUZZI_URL", server.url)
    monkeypatch.setenv("ABRUZZI_TOKEN", server.token(Role.VIEWER))
    monkeypatch.setenv("COLUMNS", "200")
    for command in (["list", "--state", "pending"], ["show", run_id], ["why", run_id]):
        told = CliRunner().invoke(app, ["runs", *command])
        assert told.exit_code == 0, told.output
        assert (run_id in told.output and "pending" in told.output) or command[0] == "why"
        assert "No node takes it." in told.output or command[0] == "list"
    assert run_id not in CliRunner().invoke(app, ["runs", "list", "--state", "running"]).output


# A machine


async def test_on_a_machine_the_reason_has_the_numbers_and_the_end_is_estimated_in_turn(gangs: Gangs) -> None:
    world = gangs.world
    capacity = {"cpus": 2.0, "memory": 1 << 34, "gpus": 0, "share": 1.0}
    status = {**UNSEEN, "ready": True, "capacity": capacity, "used": {"cpu": 2.0}}
    async with transaction(world.sessions) as session:
        await pools.observe(session, "local", status)
    recipe = RECIPE.replace('pool = "h800"\nranks = 8', "threads = {}")
    world.born = Seen(Phase.RUNNING)
    running = await world.submit(recipe.format(2))
    await world.steps(running)
    await gangs.beat(running, 10)
    world.clock.turn(60)
    await gangs.beat(running, 20)
    said = f"It waits for processors: 2 of 2 are in use by stage 'train' of run {running}. It asks for {{}}."
    waiting = []
    for threads in (8, 1):
        world.born = Seen(Phase.PENDING, reason=said.format(threads), waits_for=Reason.WAITS_FOR_CPUS)
        waiting.append(await world.submit(recipe.format(threads)))
        for _ in range(2):
            await world.steps(waiting[-1])
        world.clock.turn(1)
    first, second = [(await gangs.why("default", run_id)) for run_id in waiting]
    assert first.sentence == f"Stage 'train' can't run yet: {said.format(8)} It may start in about 8 min."
    assert second.sentence == f"Stage 'train' can't run yet: {said.format(1)}", "behind one whose length nobody knows"
    wait = second.facts[0].waits_for
    assert wait is not None
    assert (wait.code, wait.position, wait.queue_length, wait.asked.cpus) == (Reason.WAITS_FOR_CPUS, 2, 2, 1.0)
    async with transaction(gangs.app_sessions, ["default"]) as session:
        found = await queue.queue(session, "local", now=world.clock.now(), limit=10)
    assert (found.order, [item.run_id for item in found.items]) == ("machine", waiting)
