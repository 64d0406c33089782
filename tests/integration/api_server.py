"""A real API process over a real database, and requests as anybody."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
from ports import free_port

from abruzzi.contracts.states import Role
from abruzzi.kit.ids import new_id, new_run_id, new_token

START_SECONDS = 240.0
RECIPE = """
version = 1
name = "hello"
[[stage]]
id = "a"
kind = "container"
[stage.container]
command = ["true"]
[[stage]]
id = "b"
kind = "container"
needs = ["a"]
[stage.container]
command = ["true"]
"""


@dataclass
class ApiServer:
    url: str
    owner_url: str
    admin: str
    store: Path

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token or self.admin}"}
        return httpx.Client(base_url=f"{self.url}/api/v1/", headers=headers, timeout=120.0)

    def token(
        self,
        role: Role,
        *,
        project: str = "default",
        attempt: str | None = None,
        expired: bool = False,
        revoked: bool = False,
    ) -> str:
        """Straight into the table, so that any identity can be had."""
        made = new_token()
        _, token_id, secret = made.split("_", 2)
        now = datetime.now(UTC)
        with psycopg.connect(self.owner_url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO projects (id, name) VALUES (%s, %s) ON CONFLICT DO NOTHING", (project, project)
            )
            connection.execute(
                "INSERT INTO tokens (id, project_id, name, role, secret_hash, attempt_id, created_by, expires_at, revoked_at) "
                "VALUES (%s, %s, %s, %s, %s, %s, 'test', %s, %s)",
                (
                    token_id, project, role.value, role.value, hashlib.sha256(secret.encode()).digest(), attempt,
                    now + timedelta(seconds=-1 if expired else 3600), now if revoked else None,
                ),
            )  # fmt: skip
        return made

    def token_of(self, attempt_id: str) -> str:
        """A stage's token."""
        return self.token(Role.ATTEMPT, attempt=attempt_id)

    def run_with_attempt(self, project: str = "default") -> tuple[str, str]:
        """(run id, attempt id) of a running stage, as the controller would have written it."""
        run_id = new_run_id()
        with psycopg.connect(self.owner_url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO projects (id, name) VALUES (%s, %s) ON CONFLICT DO NOTHING", (project, project)
            )
            connection.execute(
                "INSERT INTO runs (id, project_id, name, recipe_name, recipe, recipe_toml, state, created_by, wake_at) "
                "VALUES (%s, %s, 'r', 'r', '{}', '', 'running', 'test', NULL)",
                (run_id, project),
            )
            connection.execute(
                "INSERT INTO stages (run_id, id, project_id, position, kind, state, needs, config, bindings, world_size, max_attempts) "
                "VALUES (%s, 'train', %s, 0, 'container', 'running', '{}', '{}', '{}', 1, 3)",
                (run_id, project),
            )
            connection.execute(
                "INSERT INTO attempts (id, project_id, run_id, stage_id, number, epoch, state, created_at) "
                "VALUES (%s, %s, %s, 'train', 1, 1, 'running', now())",
                (f"{run_id}-train-1", project, run_id),
            )
        return run_id, f"{run_id}-train-1"

    def artifact(self, run_id: str, project: str = "default") -> str:
        artifact_id = new_id()
        with psycopg.connect(self.owner_url, autocommit=True) as connection:
            connection.execute(
                "INSERT INTO artifacts (id, project_id, run_id, stage_id, attempt_id, kind, name, epoch, digest, manifest_key, size_bytes, meta, created_at) "
                "VALUES (%s, %s, %s, 'train', %s, 'files', 'files', 1, 'sha256:0', %s, 1, '{}', now())",
                (artifact_id, project, run_id, f"{run_id}-train-1", f"projects/{project}/{artifact_id}/manifest.json"),
            )
        return artifact_id

    def submit(self, token: str | None = None, **body: Any) -> dict[str, Any]:
        with self.client(token) as client:
            answer = client.post("runs", json={"recipe_toml": RECIPE, **body})
        assert answer.status_code == 201, answer.text
        return answer.json()


@contextmanager
def serve(app_url: str, owner_url: str, folder: Path, **settings: str) -> Iterator[ApiServer]:
    """Until the block ends. `settings` by their names in the environment."""
    port = free_port()
    admin = new_token()
    environment = {
        **os.environ,
        "ABRUZZI_HOME": str(folder),
        "ABRUZZI_DATABASE_URL": app_url,
        "ABRUZZI_PORT": str(port),
        "ABRUZZI_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "ABRUZZI_SIGNING_KEY": "a key for tests",
        "ABRUZZI_ADMIN_TOKEN": admin,
        **settings,
    }
    log = (folder / "api.log").open("wb")
    process = subprocess.Popen([sys.executable, "-m", "abruzzi_api.main"], env=environment, stdout=log, stderr=log)
    server = ApiServer(f"http://127.0.0.1:{port}", owner_url, admin, folder / "store")
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _is_ready(server):
            assert process.poll() is None, (folder / "api.log").read_text()
            assert time.monotonic() < deadline, (folder / "api.log").read_text()
            time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        process.wait(120)
        log.close()


def _is_ready(server: ApiServer) -> bool:
    try:
        with server.client() as client:
            return client.get("session").is_success
    except httpx.TransportError:
        return False
