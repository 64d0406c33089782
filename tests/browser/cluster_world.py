"""A platform with pools of a cluster. No cluster and no controller runs: what they would write is written here, through the same services."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from api_server import ApiServer, serve
from browser.cluster_runs import HandClock, HandRun, finish, hang, lose, work

from abruzzi.contracts.node import FaultKind, NodeCondition, NodeFacts, NodeFault, NodeGpus, NodeState, NodeTaint
from abruzzi.contracts.reason import Reason
from abruzzi.contracts.states import Role
from abruzzi.engine.view import Phase, Seen
from abruzzi.kit.db import Sessions, create_engine, create_sessions, transaction
from abruzzi.kit.tables import REGISTERED
from abruzzi.migrations import upgrade
from abruzzi.nodes import keeping
from abruzzi.nodes.records import NodeRecord, Quarantine
from abruzzi.pools import queue
from abruzzi.pools import service as pools
from abruzzi.pools.queue import Place
from abruzzi_operators.supervisor.postgres import EmbeddedPostgres

assert REGISTERED
BUILT = Path(__file__).parents[2] / "web" / "dist"
DATABASE = "cluster_world"
GIB = 1 << 30
H800: dict[str, Any] = {
    "name": "h800", "kind": "kubernetes", "flavor": "H800", "ranks_per_node": 8, "rank": {"cpus": 12.0, "memory": "200 GiB", "gpus": 1},
    "quota": {"cpus": 384.0, "memory": "8 TiB", "gpus": 32}, "cohort": "gpus", "borrow": {"cpus": 96.0, "memory": "2 TiB", "gpus": 8},
    "node_labels": {"abruzzi.io/flavor": "h800"}, "topology": ["topology/block", "topology/rack", "kubernetes.io/hostname"],
    "required_topology": "topology/block",
}  # fmt: skip
A100: dict[str, Any] = {
    "name": "a100", "kind": "kubernetes", "flavor": "A100", "ranks_per_node": 8, "rank": {"cpus": 8.0, "memory": "120 GiB", "gpus": 1},
    "quota": {"cpus": 128.0, "memory": "2 TiB", "gpus": 16}, "cohort": "gpus", "node_labels": {"abruzzi.io/flavor": "a100"},
}  # fmt: skip
CPU: dict[str, Any] = {
    "name": "cpu", "kind": "kubernetes", "rank": {"cpus": 4.0, "memory": "16 GiB"}, "quota": {"cpus": 64.0, "memory": "256 GiB"},
}  # fmt: skip
SEEN: dict[str, dict[str, Any]] = {
    "h800": {
        "ready": True, "message": "", "pending": 3, "admitted": 2,
        "used": {"nvidia.com/gpu": 36.0, "cpu": 432.0, "memory": 7200.0 * GIB},
        "borrowed": {"nvidia.com/gpu": 4.0, "cpu": 48.0},
    },
    "a100": {
        "ready": False, "message": "Can't admit new workloads: references missing ResourceFlavor(s): abruzzi-a100.",
        "pending": 0, "admitted": 0, "used": {}, "borrowed": {},
    },
    "cpu": {"ready": True, "message": "", "pending": 0, "admitted": 1, "used": {"cpu": 8.0, "memory": 32.0 * GIB}, "borrowed": {}},
}  # fmt: skip
"""What the pool controller would have seen of Kueue."""


XID = "GPU 3 has fallen off the bus (XID 79)."


@dataclass
class ClusterWorld:
    api: ApiServer
    controller_url: str
    runs: dict[str, str] = field(default_factory=dict)
    """By what they are: training (24 ranks on three nodes), vision (12 ranks of another project), pending (16 ranks, second in the queue of
    h800), last (16 ranks, behind it)."""

    @classmethod
    @contextmanager
    def start(cls, postgres: EmbeddedPostgres, folder: Path) -> Iterator[ClusterWorld]:
        with psycopg.connect(postgres.dsn("postgres", "postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE} OWNER abruzzi_owner")
        upgrade(postgres.dsn("abruzzi_owner", DATABASE))
        app, owner = (postgres.dsn(role, DATABASE) for role in ("abruzzi_app", "postgres"))
        with serve(app, owner, folder, ABRUZZI_WEB_DIR=str(BUILT)) as api:
            world = cls(api, postgres.dsn("abruzzi_controller", DATABASE))
            world._make_pools()
            world._make_runs()
            world.look_at_nodes(world.nodes())
            yield world

    @property
    def url(self) -> str:
        return self.api.url

    @property
    def admin(self) -> str:
        return self.api.admin

    def write(self, verb: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any) -> Any:
        """One call of a service in a transaction, as a controller."""

        async def call(sessions: Sessions) -> Any:
            async with transaction(sessions) as session:
                return await verb(session, *arguments, **named)

        return self._as_controller(call)

    def observe_pool(self, name: str, seen: Mapping[str, Any]) -> None:
        """As the pool controller after a look at Kueue."""
        self.write(pools.observe, name, {**seen, "observed_at": datetime.now(UTC).isoformat()})

    def look_at_nodes(self, records: Sequence[NodeRecord]) -> None:
        """As the node controller after a look at the cluster."""
        self.write(keeping.record, records, now=datetime.now(UTC))

    def nodes(self) -> list[NodeRecord]:
        """Seven nodes: three at work for one run, two for another project, one with a fault of a GPU, one that does not answer."""
        now = datetime.now(UTC)
        attempt = f"{self.runs['training']}-pretrain-1"
        at_work = [node(i, gpus=8, attempts={attempt: tuple(range(8 * i, 8 * i + 8))}) for i in range(3)]
        sick = node(
            4, NodeState.QUARANTINED, reason=XID, since=now - timedelta(minutes=31), healthy=7,
            conditions=[condition("Ready"), condition("GpuXid", bad=XID)],
            taints=[NodeTaint(key="abruzzi.io/quarantine", value="", effect="NoSchedule", is_ours=True)],
            faults=(
                NodeFault(at=now - timedelta(minutes=31), kind=FaultKind.GPU, sentence=XID, weight=1.0),
                NodeFault(at=now - timedelta(days=2), kind=FaultKind.GPU, sentence=XID, weight=1.0),
            ),
            quarantine=Quarantine(XID, now - timedelta(minutes=31), now - timedelta(minutes=1)),
        )  # fmt: skip
        lost = node(
            5, NodeState.LOST, reason="Its kubelet has not renewed its lease for 42 s.", since=now - timedelta(minutes=2), silent_seconds=162.0,
            faults=(NodeFault(at=now - timedelta(minutes=2), kind=FaultKind.LOST, sentence="It did not answer.", weight=1.0),),
        )  # fmt: skip
        theirs = f"{self.runs['vision']}-pretrain-1"
        others = [
            node(3, gpus=8, attempts={theirs: tuple(range(8))}),
            node(6, gpus=4, attempts={theirs: tuple(range(8, 12))}),
        ]
        return [*at_work, *others, sick, lost]

    def _make_pools(self) -> None:
        with self.api.client() as client:
            for spec in (H800, A100, CPU):
                client.put(f"pools/{spec['name']}", json=spec).raise_for_status()
        for name, seen in SEEN.items():
            self.observe_pool(name, seen)

    def _make_runs(self) -> None:
        """Two at work, three that wait, and what was done in the days before."""
        now = datetime.now(UTC)
        self.api.token(Role.MEMBER, project="vision")
        quota = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor abruzzi-h800"

        def waits(lacking: int, code: Reason) -> Seen:
            said = f"It waits in queue 'h800': {quota}, {lacking} more needed."
            return Seen(Phase.PENDING, reason=said, waits_for=code)

        async def make(sessions: Sessions) -> None:
            async def run(name: str, ranks: int, ago: timedelta, project: str = "default") -> HandRun:
                made = HandRun(sessions, self.api.store, HandClock(now - ago), name, ranks, project)
                await made.submit()
                return made

            await past(run)
            training = await run("k2, three nodes", 24, timedelta(minutes=55))
            await training.run("pretrain")
            training.clock.turn(minutes=3)
            await training.beat("pretrain", "train", 0, 1000)
            training.clock.moment = now
            await training.beat("pretrain", "train", 500, 1000)
            vision = await run("vit-g", 12, timedelta(minutes=50), "vision")
            await vision.run("pretrain")
            lined_up = [
                (await run("vit-g, small", 4, timedelta(minutes=20), "vision"), waits(8, Reason.WAITS_FOR_QUOTA)),
                (await run("k2 ablation, τ = 50", 16, timedelta(minutes=14)), waits(20, Reason.WAITS_FOR_QUOTA)),
                (await run("k2 ablation, plain Muon", 16, timedelta(minutes=5)), waits(20, Reason.WAITS_IN_QUEUE)),
            ]
            for one, seen in lined_up:
                await one.see("pretrain", seen)
            places = [
                Place(await one.newest("pretrain"), position, one.clock.now(), "kueue")
                for position, (one, _) in enumerate(lined_up, 1)
            ]
            async with transaction(sessions) as session:
                await queue.observe(session, "h800", places)
            self.runs.update(training=training.id, vision=vision.id, pending=lined_up[1][0].id, last=lined_up[2][0].id)

        self._as_controller(make)

    def _as_controller(self, work: Callable[[Sessions], Coroutine[Any, Any, Any]]) -> Any:
        """In a thread: Playwright's loop runs in this one."""

        async def call() -> Any:
            engine = create_engine(self.controller_url, pool_size=1)
            try:
                return await work(create_sessions(engine))
            finally:
                await engine.dispose()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, call()).result()


async def past(run: Callable[[str, int, timedelta], Awaitable[HandRun]]) -> None:
    """Twelve days: every other one has a run, one of them lost a node, one hung."""
    for days in range(12, 0, -2):
        one = await run(f"k2, day {13 - days}", 4, timedelta(days=days))
        if days == 6:
            await lose(one, 2.5)
        elif days == 10:
            await hang(one, 1.5)
        await work(one, 4.0 + days % 5)
        await finish(one)


def node(
    number: int, state: NodeState = NodeState.READY, *, gpus: int = 0, healthy: int = 8, reason: str = "", since: datetime | None = None,
    attempts: Mapping[str, tuple[int, ...]] | None = None, conditions: Sequence[NodeCondition] = (), taints: Sequence[NodeTaint] = (),
    faults: tuple[NodeFault, ...] = (), quarantine: Quarantine | None = None, silent_seconds: float = 4.0,
) -> NodeRecord:  # fmt: skip
    """Of pool h800, as the node controller would write it down; `gpus` are used."""
    now, name = datetime.now(UTC), f"h800-{number:04d}"
    topology = {"topology/block": "b1", "topology/rack": f"r{number // 2}", "kubernetes.io/hostname": name}
    facts = NodeFacts(
        cpus=96.0, memory=2 << 40, gpus=NodeGpus(total=8, healthy=healthy, used=gpus), topology=topology,
        conditions=list(conditions) or [condition("Ready")], taints=list(taints),
    )  # fmt: skip
    return NodeRecord(
        name=name, kind="kubernetes", pool="h800", state=state, reason=reason, since=since or now - timedelta(days=3), facts=facts,
        heartbeat_at=now - timedelta(seconds=silent_seconds), attempts=attempts or {}, faults=faults, quarantine=quarantine,
    )  # fmt: skip


def condition(kind: str, *, bad: str = "") -> NodeCondition:
    since = datetime.now(UTC) - timedelta(minutes=31)
    return NodeCondition(
        type=kind, status="True", reason="", message=bad or "All is well.", since=since, is_bad=bool(bad)
    )
