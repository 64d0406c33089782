"""Nodes over REST: written by the node controller, seen by everybody, drained and returned by the platform's administrators."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from api_server import ApiServer, serve
from typer.testing import CliRunner, Result

from abruzzi.cli.main import app
from abruzzi.contracts.node import FaultKind, NodeFacts, NodeFault, NodeGpus, NodeState, lemon_score
from abruzzi.contracts.pool import Capacity
from abruzzi.contracts.states import Role
from abruzzi.kit.db import Sessions, create_engine, create_sessions, transaction
from abruzzi.nodes import keeping
from abruzzi.nodes.records import NodeRecord, Quarantine
from abruzzi.runs import heartbeat
from abruzzi_operators.controller.this_machine import report
from abruzzi_operators.executors.machine import Machine

WEEK = timedelta(days=7)


@pytest.fixture(scope="module")
def server(shared_database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:  # type: ignore[no-untyped-def]
    with serve(shared_database.url("app"), shared_database.url("superuser"), tmp_path_factory.mktemp("api")) as made:
        yield made


@pytest.fixture
def admin(server: ApiServer) -> Iterator[httpx.Client]:
    with server.client() as made:
        yield made


@pytest.fixture
async def sessions(shared_database) -> AsyncIterator[Sessions]:  # type: ignore[no-untyped-def]
    """As the controller; without nodes."""
    with shared_database.connect("superuser") as connection:
        connection.execute("DELETE FROM nodes; DELETE FROM leaderships")
    engine = create_engine(shared_database.url("controller"))
    yield create_sessions(engine)
    await engine.dispose()


def found(name: str, **changes: Any) -> NodeRecord:
    now = datetime.now(UTC)
    plain: dict[str, Any] = {
        "name": name, "kind": "kubernetes", "pool": "h800", "state": NodeState.READY, "reason": "", "since": now,
        "facts": NodeFacts(cpus=192.0, memory=2 << 40, gpus=NodeGpus(total=8, healthy=8, used=0), topology={"rack": "r1"}),
        "heartbeat_at": now,
    }  # fmt: skip
    return NodeRecord(**plain | changes)


async def write(sessions: Sessions, *records: NodeRecord, now: datetime | None = None) -> None:
    async with transaction(sessions) as session:
        await keeping.record(session, records, now=now or datetime.now(UTC))


async def test_before_any_controller_the_list_is_empty_and_says_so(sessions: Sessions, admin: httpx.Client) -> None:
    assert admin.get("nodes").json() == {"items": [], "note": "No controller has reported a node yet."}
    missing = admin.get("nodes/h800-0001")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


async def test_nodes_are_listed_by_name_and_by_pool_and_state(sessions: Sessions, admin: httpx.Client) -> None:
    await write(sessions, found("b"), found("a", state=NodeState.LOST, reason="It is gone."), found("c", pool="cpu"))
    answer = admin.get("nodes").json()
    assert ([n["name"] for n in answer["items"]], answer["note"]) == (["a", "b", "c"], None)
    assert [n["name"] for n in admin.get("nodes", params={"pool": "h800", "state": "ready"}).json()["items"]] == ["b"]
    assert admin.get("nodes", params={"state": "tired"}).status_code == 422
    node = admin.get("nodes/a").json()
    assert (node["state"], node["reason"], node["gpus"]["total"]) == ("lost", "It is gone.", 8)
    assert (node["topology"], node["drain"], node["faults"], node["lemon_score"]) == ({"rack": "r1"}, None, [], 0)


async def test_a_controller_that_does_not_look_is_said(sessions: Sessions, admin: httpx.Client) -> None:
    await write(sessions, found("a"), now=datetime.now(UTC) - timedelta(minutes=5))
    assert "has not looked for 30" in admin.get("nodes").json()["note"]
    async with transaction(sessions) as session:
        await keeping.beat(session, {"a": datetime.now(UTC)}, now=datetime.now(UTC))
    assert admin.get("nodes").json()["note"] is None


async def test_a_drain_stays_until_the_node_is_returned_and_both_say_who_and_why(
    sessions: Sessions, admin: httpx.Client, server: ApiServer
) -> None:
    await write(sessions, found("a"))
    drained = admin.post("nodes/a/drain", json={"reason": "a fan"}).json()
    assert (drained["drain"]["reason"], drained["drain"]["by"]) == ("a fan", "admin:admin")
    again = admin.post("nodes/a/drain", json={"reason": "another"}).json()
    assert again["drain"] == drained["drain"]
    await write(sessions, found("a", state=NodeState.DRAINED))
    assert admin.get("nodes/a").json()["drain"] == drained["drain"], "the controller leaves it alone"
    returned = admin.post("nodes/a/return", json={"reason": "new fan"}).json()
    assert (returned["drain"], returned["returned"]["reason"]) == (None, "new fan")
    audited = [entry["object"] for entry in admin.get("audit").json()["items"]]
    assert "/api/v1/nodes/a/drain" in audited
    assert "/api/v1/nodes/a/return" in audited
    assert admin.post("nodes/a/drain", json={"reason": " "}).status_code == 422
    assert admin.post("nodes/none/drain", json={"reason": "x"}).status_code == 404


async def test_only_the_platforms_administrators_drain_and_every_project_sees(
    sessions: Sessions, server: ApiServer
) -> None:
    await write(sessions, found("a"))
    for token in (server.token(Role.ADMIN, project="tenant"), server.token(Role.MAINTAINER)):
        with server.client(token) as other:
            assert other.post("nodes/a/drain", json={"reason": "x"}).status_code == 403
            assert [n["name"] for n in other.get("nodes").json()["items"]] == ["a"]


async def test_this_machine_cannot_be_drained(sessions: Sessions, admin: httpx.Client) -> None:
    await write(sessions, found("laptop", kind="local", pool="local"))
    answer = admin.post("nodes/laptop/drain", json={"reason": "x"})
    assert (answer.status_code, answer.json()["code"]) == (409, "local_node")
    assert "Ctrl-C" in answer.json()["hint"]


async def test_attempts_of_other_projects_are_counted_and_not_named(
    sessions: Sessions, server: ApiServer, admin: httpx.Client
) -> None:
    _, ours = server.run_with_attempt()
    await write(sessions, found("a", attempts={ours: (1, 0), "9999999999-train-1": (0,)}))
    node = admin.get("nodes/a").json()
    assert node["attempts"] == [{"attempt_id": ours, "run_id": ours[:10], "stage_id": "train", "ranks": [0, 1]}]
    assert node["hidden_attempts"] == 1
    with server.client(server.token(Role.VIEWER, project="tenant")) as tenant:
        node = tenant.get("nodes/a").json()
        assert (node["attempts"], node["hidden_attempts"]) == ([], 2)


async def test_faults_fade_and_a_return_forgives_them(sessions: Sessions, admin: httpx.Client) -> None:
    now = datetime.now(UTC)
    faults = tuple(
        NodeFault(at=now - age, kind=FaultKind.GPU, sentence="XID 79.", weight=1.0) for age in (timedelta(0), WEEK)
    )
    quarantine = Quarantine("XID 79.", now, now)
    await write(sessions, found("a", faults=faults, quarantine=quarantine, state=NodeState.QUARANTINED))
    assert admin.get("nodes/a").json()["lemon_score"] == pytest.approx(1.5, abs=0.01)
    assert lemon_score(faults, now=now + WEEK) == pytest.approx(0.75)
    admin.post("nodes/a/return", json={"reason": "new card"})
    assert admin.get("nodes/a").json()["lemon_score"] == 0
    async with transaction(sessions) as session:
        memory = (await keeping.remembered(session))["a"]
    assert (memory.quarantine, memory.faults) == (None, faults)
    # A look that began before the return does not bring the quarantine back; one that began after it may.
    await write(sessions, found("a", faults=faults, quarantine=quarantine))
    async with transaction(sessions) as session:
        assert (await keeping.remembered(session))["a"].quarantine is None
    await write(sessions, found("a", faults=faults, quarantine=quarantine, forgiven_at=memory.forgiven_at))
    async with transaction(sessions) as session:
        assert (await keeping.remembered(session))["a"].quarantine == quarantine


async def test_of_several_controllers_one_leads_until_it_is_silent_or_resigns(sessions: Sessions) -> None:
    async def lead(owner: str, now: datetime) -> bool:
        async with transaction(sessions) as session:
            return await keeping.lead(session, "nodes", owner, seconds=15, now=now)

    start = datetime.now(UTC)
    assert await lead("a", start)
    assert not await lead("b", start)
    assert await lead("a", start + timedelta(seconds=10))
    assert not await lead("b", start + timedelta(seconds=20))
    assert await lead("b", start + timedelta(seconds=26))
    assert not await lead("a", start + timedelta(seconds=27)), "it was stopped for too long"
    async with transaction(sessions) as session:
        await keeping.resign(session, "nodes", "a")
        await keeping.resign(session, "nodes", "b")
    assert await lead("a", start + timedelta(seconds=28))
    both = await asyncio.gather(*(lead(owner, start + timedelta(seconds=60)) for owner in ("b", "c")))
    assert sorted(both) == [False, True]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO nodes (name, kind, state, since, observed_at) VALUES ('x', 'local', 'ready', now(), now())",
        "UPDATE nodes SET state = 'ready'",
        "DELETE FROM nodes",
        "SELECT * FROM leaderships",
    ],
)
def test_the_api_writes_nothing_of_a_node_but_what_people_decide(shared_database, statement: str) -> None:  # type: ignore[no-untyped-def]
    with shared_database.connect("app") as connection:
        connection.execute("SELECT set_config('abruzzi.projects', 'default', false)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)


async def test_the_machine_of_a_local_platform_is_its_one_node(
    sessions: Sessions, server: ApiServer, admin: httpx.Client, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    _, attempt = server.run_with_attempt()
    machine = Machine(tmp_path, Capacity(cpus=2.0, memory=1 << 30, share=1.0))
    await write(sessions, found("old-name", kind="local", pool="local"), now=now - timedelta(hours=1))
    for _ in range(2):
        await report(sessions, "laptop", machine, since=now, now=now)
    answer = admin.get("nodes").json()
    assert ([n["name"] for n in answer["items"]], answer["note"]) == (["laptop"], None)
    (node,) = answer["items"]
    assert (node["kind"], node["pool"], node["state"]) == ("local", "local", "ready")
    assert node["cpus"] >= 1
    assert node["memory"] > 1 << 28
    assert attempt in [a["attempt_id"] for a in node["attempts"]]
    [pool] = [p for p in admin.get("pools").json()["items"] if p["name"] == "local"]
    assert pool["status"]["capacity"] == {"cpus": 2.0, "memory": 1 << 30, "gpus": 0, "share": 1.0}
    assert (pool["status"]["ready"], pool["status"]["used"], pool["status"]["pending"]) == (True, {"cpu": 0.0}, 0)


async def test_the_command_line_lists_shows_drains_and_returns(sessions: Sessions, server: ApiServer) -> None:
    def command(*arguments: str) -> Result:
        environment = {"ABRUZZI_URL": server.url, "ABRUZZI_TOKEN": server.token(Role.ADMIN), "COLUMNS": "200"}
        return CliRunner().invoke(app, ["nodes", *arguments], env=environment)

    assert "No controller has reported a node yet." in command("list").output
    fault = NodeFault(at=datetime.now(UTC), kind=FaultKind.GPU, sentence="XID 79 [bus].", weight=1.0)
    await write(sessions, found("h800-0001", state=NodeState.QUARANTINED, reason="XID 79 [bus].", faults=(fault,)))
    listed = command("list", "--pool", "h800").output
    assert "quarantined" in listed
    assert "0 of 8" in listed
    assert "XID 79 [bus]." in listed
    assert "gpu: XID 79 [bus]." in command("show", "h800-0001").output
    assert "is being drained" in command("drain", "h800-0001", "--reason", "new card").output
    assert json.loads(command("show", "h800-0001", "--json").output)["drain"]["reason"] == "new card"
    assert "takes part again" in command("return", "h800-0001", "--reason", "new card").output
    assert command("drain", "h800-0001").exit_code == 2, "a reason is asked for"


async def test_the_newest_word_of_each_rank_and_how_often_it_speaks(
    sessions: Sessions, server: ApiServer, shared_database
) -> None:  # type: ignore[no-untyped-def]
    _, attempt = server.run_with_attempt()
    with server.client(server.token(Role.ATTEMPT, attempt=attempt)) as stage:
        now = datetime.now(UTC).timestamp()
        for step, late in enumerate((6.0, 4.0, 1.0)):
            body = {"rank": 0, "step": step, "phase": "train", "at": now - late, "even_steps": True}
            assert stage.post(f"attempts/{attempt}/heartbeats", json=body).status_code == 202
    async with transaction(sessions) as session:
        [word] = await heartbeat.newest(session, [attempt])
    assert (word.attempt_id, word.rank, word.step) == (attempt, 0, 2)
    assert word.step_seconds == pytest.approx(3.0, abs=0.01)
