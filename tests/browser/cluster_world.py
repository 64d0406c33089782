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

from abruzzi.contracts.node import FaultKind, NodeCondition, NodeFacts, NodeFault, NodeGpus, NodeState, NodeTaint
from abruzzi.contracts.stage import DirectoryStore as DirectoryConfig
from abruzzi.engine.actions import CreateWorkload, RemoveWorkload
from abruzzi.engine.decide import decide
from abruzzi.engine.view import Phase, Seen
from abruzzi.kit.clock import SystemClock
from abruzzi.kit.db import Sessions, create_engine, create_sessions, transaction
from abruzzi.kit.tables import REGISTERED
from abruzzi.migrations import upgrade
from abruzzi.nodes import keeping
from abruzzi.nodes.records import NodeRecord, Quarantine
from abruzzi.pools import service as pools
from abruzzi.runs.run_store import PostgresRunStore
from abruzzi.store import DirectoryStore
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
        "ready": True, "message": "", "pending": 2, "admitted": 2,
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


RECIPE = """
version = 1
name = "k2-ablation"
[[stage]]
id = "pretrain"
kind = "container"
[stage.container]
command = ["true"]
[stage.resources]
pool = "h800"
ranks = RANKS
"""
XID = "GPU 3 has fallen off the bus (XID 79)."


@dataclass
class ClusterWorld:
    api: ApiServer
    controller_url: str
    runs: dict[str, str] = field(default_factory=dict)
    """By what they are: training (24 ranks on three nodes)."""
    _seen: dict[str, Seen] = field(default_factory=dict)

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

    def submit(self, name: str, ranks: int, seen: Seen) -> str:
        """A run whose first attempt the cluster shows as `seen`."""
        run_id = self.api.submit(recipe_toml=RECIPE.replace("RANKS", str(ranks)), name=name)["id"]
        self._as_controller(lambda sessions: self._step(sessions, run_id, seen))
        return run_id

    def nodes(self) -> list[NodeRecord]:
        """Six nodes: three at work, one that is free, one with a fault of a GPU, one that does not answer."""
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
            5, NodeState.LOST, reason="Its kubelet has not renewed its lease for 42 s.", since=now - timedelta(minutes=2),
            faults=(NodeFault(at=now - timedelta(minutes=2), kind=FaultKind.LOST, sentence="It did not answer.", weight=1.0),),
        )  # fmt: skip
        return [*at_work, node(3), sick, lost]

    def _make_pools(self) -> None:
        with self.api.client() as client:
            for spec in (H800, A100, CPU):
                client.put(f"pools/{spec['name']}", json=spec).raise_for_status()
        for name, seen in SEEN.items():
            self.observe_pool(name, seen)

    def _make_runs(self) -> None:
        self.runs["training"] = self.submit("k2, three nodes", 24, Seen(Phase.RUNNING))

    async def _step(self, sessions: Sessions, run_id: str, made: Seen) -> None:
        """As the run controller until there is nothing to do; a workload that it makes is then `made`."""
        root = self.api.store
        store = PostgresRunStore(
            sessions, DirectoryStore(root), DirectoryConfig(root=str(root)), clock := SystemClock()
        )
        (lease,) = [found for found in await store.lease("test", limit=100, ttl_seconds=60.0) if found.run_id == run_id]
        while True:
            view = await store.load(run_id)
            known = {a.id: self._seen.get(a.id, Seen(Phase.GONE)) for stage in view.stages for a in stage.attempts}
            decision = decide(view, known, clock.now().timestamp())
            for effect in (*decision.before, *decision.after):
                if isinstance(effect, CreateWorkload | RemoveWorkload):
                    self._seen[effect.attempt_id] = made if isinstance(effect, CreateWorkload) else Seen(Phase.GONE)
            if decision.writes:
                await store.apply(lease, view.version, decision.writes)
            elif not decision.after:
                await store.release(lease, wake_at=clock.now().timestamp())
                return

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


def node(
    number: int, state: NodeState = NodeState.READY, *, gpus: int = 0, healthy: int = 8, reason: str = "", since: datetime | None = None,
    attempts: Mapping[str, tuple[int, ...]] | None = None, conditions: Sequence[NodeCondition] = (), taints: Sequence[NodeTaint] = (),
    faults: tuple[NodeFault, ...] = (), quarantine: Quarantine | None = None, cordoned: bool = False,
) -> NodeRecord:  # fmt: skip
    """Of pool h800, as the node controller would write it down; `gpus` are used."""
    now, name = datetime.now(UTC), f"h800-{number:04d}"
    topology = {"topology/block": "b1", "topology/rack": f"r{number // 2}", "kubernetes.io/hostname": name}
    facts = NodeFacts(
        cpus=96.0, memory=2 << 40, gpus=NodeGpus(total=8, healthy=healthy, used=gpus), topology=topology,
        conditions=list(conditions) or [condition("Ready")], taints=list(taints), cordoned=cordoned,
    )  # fmt: skip
    return NodeRecord(
        name=name, kind="kubernetes", pool="h800", state=state, reason=reason, since=since or now - timedelta(days=3), facts=facts,
        heartbeat_at=now - timedelta(seconds=4), attempts=attempts or {}, faults=faults, quarantine=quarantine,
    )  # fmt: skip


def condition(kind: str, *, bad: str = "") -> NodeCondition:
    since = datetime.now(UTC) - timedelta(minutes=31)
    return NodeCondition(
        type=kind, status="True", reason="", message=bad or "All is well.", since=since, is_bad=bool(bad)
    )
