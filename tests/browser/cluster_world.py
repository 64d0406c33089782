"""A platform with pools of a cluster. No cluster and no controller runs: what they would write is written here, through the same services."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from api_server import ApiServer, serve

from abruzzi.kit.db import create_engine, create_sessions, transaction
from abruzzi.kit.tables import REGISTERED
from abruzzi.migrations import upgrade
from abruzzi.pools import service as pools
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


@dataclass
class ClusterWorld:
    api: ApiServer
    controller_url: str

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
            yield world

    @property
    def url(self) -> str:
        return self.api.url

    @property
    def admin(self) -> str:
        return self.api.admin

    def write(self, verb: Callable[..., Awaitable[Any]], *arguments: Any, **named: Any) -> Any:
        """One call of a service in a transaction, as a controller. In a thread: Playwright's loop runs in this one."""

        async def call() -> Any:
            engine = create_engine(self.controller_url, pool_size=1)
            try:
                async with transaction(create_sessions(engine)) as session:
                    return await verb(session, *arguments, **named)
            finally:
                await engine.dispose()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, call()).result()

    def observe_pool(self, name: str, seen: Mapping[str, Any]) -> None:
        self.write(pools.observe, name, {**seen, "observed_at": datetime.now(UTC).isoformat()})

    def _make_pools(self) -> None:
        with self.api.client() as client:
            for spec in (H800, A100, CPU):
                client.put(f"pools/{spec['name']}", json=spec).raise_for_status()
        for name, seen in SEEN.items():
            self.observe_pool(name, seen)
