"""The platform's processes on this machine in front of a test cluster: PostgreSQL, MinIO, API and a controller whose executor is the cluster.

Pods get this checkout's environment by mounts (ABRUZZI_POD_TEMPLATE), so no image of gigabytes is needed: the node is this machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
from cluster.handle import ClusterHandle
from ports import free_ports
from psycopg import sql

from abruzzi.client.client import Client
from abruzzi.client.transport import Unavailable
from abruzzi.contracts.resources import AttemptOut, RunOut
from abruzzi.contracts.stage import S3Store as S3Config
from abruzzi.kit.ids import new_token
from abruzzi.migrations import upgrade
from abruzzi.store.s3 import S3Store
from abruzzi_operators.executors.fence import policies
from abruzzi_operators.supervisor.postgres import EmbeddedPostgres

ACCESS, SECRET, BUCKET = "abruzzi-platform", "abruzzi-platform-secret", "abruzzi"
START_SECONDS = 240.0


class PlatformProcess:
    def __init__(self, folder: Path, cluster: ClusterHandle, namespace: str, postgres: EmbeddedPostgres) -> None:
        self.folder, self.cluster, self.namespace, self._postgres = folder, cluster, namespace, postgres
        self.address = cluster.host_address
        self.admin = new_token()
        self.placement: dict[str, Any] = {"cpu_cores": 0.1, "memory": "2 GB", "ranks_per_node": 1}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._api_port, self._s3_port, self._console_port = free_ports(3)

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self._api_port}"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cluster.kubectl.apply(*policies(self.namespace))
        self._start_store()
        self._database()
        self.start_api()
        self.start_controller()

    def start_api(self) -> None:
        self._start("api", [sys.executable, "-m", "abruzzi_api.main"], self._environment())
        self._until(lambda: httpx.get(f"{self.url}/readyz", trust_env=False).is_success, "the API is not ready", "api")

    def start_controller(self, name: str = "controller", *, kubeconfig: Path | None = None) -> None:
        """`kubeconfig`: another way to the cluster than this process's own."""
        environment = self._environment() | ({"KUBECONFIG": str(kubeconfig)} if kubeconfig else {})
        self._start(name, [sys.executable, "-m", "abruzzi_operators.controller.main"], environment)

    def signal(self, name: str, number: int) -> None:
        self._processes[name].send_signal(number)

    def kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for process in reversed(list(self._processes.values())):
            process.terminate()
        for name in reversed(list(self._processes)):
            try:
                self._processes[name].wait(120)
            except subprocess.TimeoutExpired:
                self.kill(name)

    # What a person does

    def client(self) -> Client:
        return Client(self.url, self.admin, retry_seconds=30.0)

    def submit(self, recipe: str) -> str:
        with self.client() as client:
            return client.runs.submit(recipe, None).id

    def run(self, run_id: str) -> RunOut:
        with self.client() as client:
            return client.runs.get(run_id)

    def attempts(self, run_id: str, stage_id: str) -> list[AttemptOut]:
        return next(stage for stage in self.run(run_id).detail if stage.id == stage_id).attempts

    def until(self, condition: Callable[[], object], *, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except Unavailable:
                pass
            assert time.monotonic() < deadline, f"not true after {seconds:.0f} s\n{self.last_words()}"
            time.sleep(0.2)

    def wait_end(self, run_id: str, *, seconds: float) -> RunOut:
        self.until(lambda: self.run(run_id).state.is_terminal, seconds=seconds)
        return self.run(run_id)

    def last_words(self) -> str:
        logs = [
            f"--- {log.name}\n{log.read_bytes()[-3000:].decode(errors='replace')}" for log in self.folder.glob("*.log")
        ]
        pods = self.cluster.kubectl.try_run("describe", "pods", "-n", self.namespace).stdout[-6000:]
        return "\n".join([*logs, self.cluster.what_happened(self.namespace), pods])

    def objects(self) -> S3Store:
        """Its object store, as a stage reaches it."""
        return S3Store(self._store)

    # Its parts

    @property
    def _store(self) -> S3Config:
        return S3Config(endpoint=f"{self.address}:{self._s3_port}", bucket=BUCKET, secure=False)

    def _environment(self) -> dict[str, str]:
        template = self.folder / "pod-template.json"
        image, additions = self.cluster.stage_pods()
        template.write_text(json.dumps(additions))
        return {
            **os.environ,
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "KUBECONFIG": str(self.cluster.kubeconfig),
            "ABRUZZI_HOME": str(self.folder / "home"),
            "ABRUZZI_HOST": "0.0.0.0",
            "ABRUZZI_PORT": str(self._api_port),
            "ABRUZZI_URL": self.url,
            "ABRUZZI_DATABASE_URL": self._postgres.dsn("abruzzi_app", self._name),
            "ABRUZZI_CONTROLLER_DATABASE_URL": self._postgres.dsn("abruzzi_controller", self._name),
            "ABRUZZI_STORE": self._store.model_dump_json(),
            "ABRUZZI_SIGNING_KEY": "a key for tests",
            "ABRUZZI_ADMIN_TOKEN": self.admin,
            "ABRUZZI_EXECUTOR": "kubernetes",
            "ABRUZZI_NAMESPACE": self.namespace,
            "ABRUZZI_STAGE_IMAGE": image,
            "ABRUZZI_POD_TEMPLATE": str(template),
            "ABRUZZI_PLACEMENT": json.dumps(self.placement),
        }

    @property
    def _name(self) -> str:
        return self.namespace.replace("-", "_")

    def _database(self) -> None:
        with psycopg.connect(self._postgres.dsn("postgres", "postgres"), autocommit=True) as connection:
            statement = sql.SQL("CREATE DATABASE {} OWNER abruzzi_owner").format(sql.Identifier(self._name))
            connection.execute(statement)
        upgrade(self._postgres.dsn("abruzzi_owner", self._name))

    def _start_store(self) -> None:
        environment = {**os.environ, "MINIO_ROOT_USER": ACCESS, "MINIO_ROOT_PASSWORD": SECRET}
        command = [
            str(self.cluster.tools.path("minio")), "server", "--quiet", "--address", f"0.0.0.0:{self._s3_port}",
            "--console-address", f"127.0.0.1:{self._console_port}", str(self.folder / "objects"),
        ]  # fmt: skip
        self._start("minio", command, environment)
        health = f"http://{self.address}:{self._s3_port}/minio/health/ready"
        self._until(lambda: httpx.get(health, trust_env=False).is_success, "MinIO is not ready", "minio")
        os.environ.update(AWS_ACCESS_KEY_ID=ACCESS, AWS_SECRET_ACCESS_KEY=SECRET)
        self.objects().ensure_bucket()

    def _start(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(command, env=dict(environment), stdout=log, stderr=log)

    def _until(self, condition: Callable[[], bool], complaint: str, name: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if condition():
                    return
            except httpx.TransportError:
                pass
            assert self._processes[name].poll() is None, f"{name} ended\n{self.last_words()}"
            assert time.monotonic() < deadline, f"{complaint}\n{self.last_words()}"
            time.sleep(0.05)


@contextmanager
def open_platform(
    folder: Path, cluster: ClusterHandle, namespace: str, postgres: EmbeddedPostgres, **placement: Any
) -> Iterator[PlatformProcess]:
    platform = PlatformProcess(folder, cluster, namespace, postgres)
    platform.placement |= placement
    try:
        platform.start()
        yield platform
    finally:
        platform.stop()
