"""The services of docker-compose.yml as processes without containers: their commands and environments are taken from that file, host names
and paths of containers replaced. Postgres, Redis and Prometheus are Debian's; S3 is MinIO where there is one, else moto's server."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import compose_file
import httpx
import redis
import yaml
from ports import free_port
from s3_server import minio_binary

from abruzzi.client.client import Client
from abruzzi.contracts.stage import S3Store as S3Config
from abruzzi.kit.ids import new_token
from abruzzi.store.s3 import S3Store
from abruzzi_operators.supervisor.postgres import EmbeddedPostgres
from abruzzi_operators.supervisor.postgres_binaries import ENV_BINARIES

START_SECONDS = 240.0
POLL_SECONDS = 0.05
PROGRAMS = ("redis-server", "prometheus")
SCRAPE_SECONDS = 1


def missing_programs() -> list[str]:
    """Debian packages that would have to be there."""
    found = [name for name in PROGRAMS if shutil.which(name) is None]
    return found + ([] if debian_postgres() else ["postgresql"])


def debian_postgres() -> Path | None:
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), default=None)


class ProductionSet:
    """Context manager; everything is up when it is entered. `extra` joins the .env file."""

    def __init__(self, folder: Path, extra: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.admin = new_token()
        self.secrets = {
            name: value or f"secret{number:02d}{name.lower().replace('_', '')}"
            for number, (name, value) in enumerate(compose_file.example().items())
            if compose_file.variables()[name]
        } | {"ABRUZZI_ADMIN_TOKEN": self.admin, **(extra or {})}
        self.file = compose_file.load(self.secrets)
        self.ports = {name: free_port() for name in ("redis", "s3", "api", "metrics", "prometheus")}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.s3_is_minio = minio_binary() is not None
        self._stack = ExitStack()

    def __enter__(self) -> ProductionSet:
        with ExitStack() as stack:
            stack.callback(self._end)
            self._start_postgres(stack)
            self._start_stores()
            self.run_to_end("migrate")
            for name in ("api", "controller", "worker", "beat", "prometheus"):
                self.start(name)
            self.until(lambda: httpx.get(f"{self.url}/readyz").is_success)
            self.until(lambda: httpx.get(f"{self.prometheus_url}/-/ready").is_success)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['api']}"

    @property
    def prometheus_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['prometheus']}"

    def client(self) -> Client:
        return Client(self.url, self.admin)

    def redis(self) -> redis.Redis:
        return redis.Redis(port=self.ports["redis"], password=self.secrets["ABRUZZI_REDIS_PASSWORD"])

    def objects(self) -> S3Store:
        os.environ.update(self._s3_keys())
        return S3Store(S3Config(endpoint=f"127.0.0.1:{self.ports['s3']}", bucket="abruzzi", secure=False))

    def start(self, name: str) -> None:
        """As Compose does, at first and after an end (`restart: unless-stopped`)."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                self._command(name), env=self._environment(name), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                cwd=self.folder, start_new_session=True,
            )  # fmt: skip

    def run_to_end(self, name: str) -> None:
        self.start(name)
        assert self.processes[name].wait(START_SECONDS) == 0, self.last_words()

    def ask(self, name: str, command: Sequence[str], **environment: str) -> str:
        """As `docker compose run -e … NAME COMMAND`: what it prints."""
        done = subprocess.run(
            command, env={**self._environment(name), **environment}, cwd=self.folder, capture_output=True, text=True, timeout=START_SECONDS
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def kill(self, name: str) -> None:
        """SIGKILL to all of its processes, as to a container."""
        os.killpg(self.processes[name].pid, signal.SIGKILL)
        self.processes[name].wait()

    def until(self, condition: Callable[[], object], *, seconds: float = START_SECONDS) -> None:
        """While a part does not answer, the condition counts as not true yet."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if condition():
                    return
            except (httpx.TransportError, redis.ConnectionError):
                pass
            assert time.monotonic() < deadline, f"not true after {seconds:.0f} s\n{self.last_words()}"
            time.sleep(POLL_SECONDS)

    def last_words(self) -> str:
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_bytes()[-1500:].decode(errors='replace')}" for log in logs)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _start_postgres(self, stack: ExitStack) -> None:
        binaries = debian_postgres()
        assert binaries is not None
        before = os.environ.get(ENV_BINARIES)
        os.environ[ENV_BINARIES] = str(binaries)
        stack.callback(
            lambda: os.environ.pop(ENV_BINARIES) if before is None else os.environ.update({ENV_BINARIES: before})
        )
        roles = ("owner", "app", "controller")
        passwords = {f"abruzzi_{role}": self.secrets[f"ABRUZZI_{role.upper()}_PASSWORD"] for role in roles}
        passwords["postgres"] = "superuser"
        self.postgres = stack.enter_context(
            EmbeddedPostgres(self.folder / "postgres", passwords=passwords, durable=False)
        )

    def _start_stores(self) -> None:
        for name in ("redis", "s3"):
            self.start(name)
        self.until(lambda: self.redis().ping())
        self.until(lambda: httpx.get(f"http://127.0.0.1:{self.ports['s3']}/").status_code)

    def _command(self, name: str) -> list[str]:
        command = [self._translated(part) for part in self.file["services"][name]["command"]]
        match name:
            case "redis":
                return [*command, "--port", str(self.ports["redis"]), "--bind", "127.0.0.1", "--dir", str(self.folder)]
            case "s3" if self.s3_is_minio:
                return [str(minio_binary()), *command[1:]]
            case "s3":
                return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.ports["s3"])]
            case "prometheus":
                config = yaml.safe_load(self._translated(self.file["configs"]["prometheus"]["content"]))
                config["global"] = {"scrape_interval": f"{SCRAPE_SECONDS}s", "scrape_timeout": f"{SCRAPE_SECONDS}s"}
                (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
                return ["prometheus", *command, f"--web.listen-address=127.0.0.1:{self.ports['prometheus']}"]
            case _:
                return command

    def _environment(self, name: str) -> dict[str, str]:
        mine = {key: value for key, value in os.environ.items() if not key.startswith(("ABRUZZI_", "AWS_"))}
        mine["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{mine['PATH']}"
        given = self.file["services"][name].get("environment", {})
        translated = {key: self._translated(value) for key, value in given.items()}
        replaced = {
            "ABRUZZI_HOST": "127.0.0.1",
            "ABRUZZI_PORT": str(self.ports["api"]),
            "ABRUZZI_METRICS_PORT": str(self.ports["metrics"]),
        }
        return (
            mine
            | translated
            | {key: value for key, value in replaced.items() if key in given}
            | {"PYTHONUNBUFFERED": "1"}
        )

    def _translated(self, text: str) -> str:
        """Names and paths of the containers' world, as they are here."""
        address = self.postgres.dsn("abruzzi_owner", "abruzzi").partition("@")[2]
        for there, here in (
            (r"@postgres/abruzzi\b", f"@{address}"),
            (r"@redis:6379\b", f"@127.0.0.1:{self.ports['redis']}"),
            (r"\bs3:9000\b", f"127.0.0.1:{self.ports['s3']}"),
            (r"^:9000$", f"127.0.0.1:{self.ports['s3']}"),
            (r"\bapi:8600\b", f"127.0.0.1:{self.ports['api']}"),
            (r"\bcontroller:8601\b", f"127.0.0.1:{self.ports['metrics']}"),
            (r"^/(state|data|prometheus)$", f"{self.folder}/\\1"),
            (r"=/prometheus$", f"={self.folder}/tsdb"),
            (r"=/etc/prometheus/", f"={self.folder}/"),
            (r"^/tmp/beat$", f"{self.folder}/beat"),
        ):
            text = re.sub(there, here, text)
        return text

    def _s3_keys(self) -> dict[str, str]:
        keys = ("ACCESS_KEY", "SECRET_KEY")
        access, secret = (self.secrets[f"ABRUZZI_S3_{key}"] for key in keys)
        return {"AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret}

    def _end(self) -> None:
        for name in ("beat", "worker", "controller", "api", "prometheus", "s3", "redis", "migrate"):
            process = self.processes.get(name)
            if process is not None and process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def panels() -> Iterator[tuple[str, str, str]]:
    """(dashboard, panel, query) of every dashboard that ships."""
    for path in sorted((compose_file.ROOT / "charts/abruzzi/dashboards").glob("*.json")):
        dashboard: dict[str, Any] = json.loads(path.read_text())
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                yield dashboard["title"], panel["title"], target["expr"]
