"""Metric ingestion over HTTP: a real abruzzi-api against a real `mlflow server`, both on one PostgreSQL that waits for its disk.

    python bench/ingest.py [--out FILE] [--rounds 5] [--points 40000]

Both write the same points (ten keys at every step) from this machine, in turns (A B, B A, …), with one run and with several at once. Each
uses its best documented way: ours the batches of 10 000 points that the stage reporter sends, encoding included; mlflow
`MlflowClient.log_batch` with the 1000 metrics that a call may take, made before the clock starts. Both answer after their commit.
mlflow lives in `.bench-envs/mlflow`, made by uv at the first run. mlflow's server has its default number of worker processes; ours is one.
Targets: ours at least 20 000 durable points/s, and at least 20 times mlflow's, with one run as with several.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "integration"))

from api_server import ApiServer, serve
from interleaved import machine, report, summary

from abruzzi.contracts.metric import MetricBatch, Series
from abruzzi.migrations import upgrade
from abruzzi_operators.supervisor.postgres import EmbeddedPostgres

MLFLOW = "mlflow==3.17.2"
ENVIRONMENT = Path(__file__).resolve().parent.parent / ".bench-envs" / "mlflow"
CACHED_UV = ENVIRONMENT.parent.parent / ".cache" / "uv" / "bin"
KEYS = [f"train/metric.{i:02d}" for i in range(9)] + ["train/loss"]
OUR_BATCH_POINTS = 10_000
MLFLOW_BATCH_POINTS = 1_000
START_SECONDS = 120.0
TARGET_POINTS_PER_SECOND = 20_000
TARGET_RATIO = 20.0


def main() -> int:
    options = _arguments()
    python = mlflow_environment()
    with tempfile.TemporaryDirectory(prefix="ingest-") as folder, EmbeddedPostgres(Path(folder) / "pg") as postgres:
        result = measure(Path(folder), postgres, python, options)
    result["machine"] = machine(threads=0)
    report(result, out=options.out)
    return 0 if result["ok"] else 1


def measure(folder: Path, postgres: EmbeddedPostgres, python: Path, options: argparse.Namespace) -> dict[str, Any]:
    with psycopg.connect(postgres.dsn("postgres", "postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE bench OWNER abruzzi_owner")
        connection.execute("CREATE DATABASE mlflow")
        durability = {name: connection.execute(f"SHOW {name}").fetchone()[0] for name in _DURABILITY}  # type: ignore[index,arg-type]
    upgrade(postgres.dsn("abruzzi_owner", "bench"))
    started = os.getloadavg()
    api = serve(postgres.dsn("abruzzi_app", "bench"), postgres.dsn("postgres", "bench"), folder)
    with api as server, mlflow_server(postgres.dsn("postgres", "mlflow"), python, folder) as address:
        ours, theirs = Ours(server, options.writers), Theirs(python, address, options.writers)
        try:
            cases = {f"{writers}_at_once": compare(ours, theirs, writers, options) for writers in (1, options.writers)}
            ours.check()
        finally:
            theirs.close()
            ours.close()
    return {
        "bench": "ingest",
        **cases,
        "keys": len(KEYS),
        "batch_points": {"ours": OUR_BATCH_POINTS, "mlflow": MLFLOW_BATCH_POINTS},
        "versions": {"mlflow": theirs.version, "postgres": durability.pop("server_version")},
        "durability": durability,
        "load_average_at_start": list(started),
        "targets": {"points_per_second": TARGET_POINTS_PER_SECOND, "ratio": TARGET_RATIO},
        "ok": all(
            c["ours"]["points_per_second"] >= TARGET_POINTS_PER_SECOND and c["ratio"] >= TARGET_RATIO
            for c in cases.values()
        ),
    }


def compare(ours: Ours, theirs: Theirs, writers: int, options: argparse.Namespace) -> dict[str, Any]:
    """Every round is of `options.points` new points in all, divided among the writers."""
    steps = options.points // writers // len(KEYS)
    points = steps * writers * len(KEYS)
    seconds: dict[str, list[float]] = {"ours": [], "mlflow": []}
    sides: dict[str, Ours | Theirs] = {"ours": ours, "mlflow": theirs}
    loads = []
    for number in range(-1, options.rounds):
        loads.append(os.getloadavg()[0])
        for name in ("ours", "mlflow") if number % 2 == 0 else ("mlflow", "ours"):
            taken = sides[name].write(writers, steps)
            if number >= 0:  # the first round warms both up
                seconds[name].append(taken)
    rates = {name: [points / s for s in values] for name, values in seconds.items()}
    ratios = [a / b for a, b in zip(rates["ours"], rates["mlflow"], strict=True)]
    return {
        "writers": writers,
        "points_each_round": points,
        **{
            name: {
                "points_per_second": statistics.median(rates[name]),
                "points_per_second_each_round": rates[name],
                **summary(seconds[name]),
            }
            for name in rates
        },
        "ratio": statistics.median(rates["ours"]) / statistics.median(rates["mlflow"]),
        "ratio_each_round": ratios,
        "load_average_before_rounds": loads,
    }


class Ours:
    def __init__(self, server: ApiServer, writers: int) -> None:
        self._server = server
        self._next_step = 0
        self._attempts = [server.run_with_attempt()[1] for _ in range(writers)]
        self._clients = [server.client(server.token_of(attempt)) for attempt in self._attempts]
        self._pool = ThreadPoolExecutor(writers)
        self._sent = 0

    def write(self, writers: int, steps: int) -> float:
        """Seconds until the last answer."""
        first, self._next_step = self._next_step, self._next_step + steps
        self._sent += steps * writers * len(KEYS)
        batches = [
            {key: _series(range(at, min(at + OUR_BATCH_POINTS // len(KEYS), first + steps))) for key in KEYS}
            for at in range(first, first + steps, OUR_BATCH_POINTS // len(KEYS))
        ]
        began = time.perf_counter()
        list(self._pool.map(lambda number: self._send(number, batches), range(writers)))
        return time.perf_counter() - began

    def check(self) -> None:
        """Every point that was sent is in the database, and in the coarsest tier."""
        with psycopg.connect(self._server.owner_url) as connection:
            for name, query in (
                ("metric_points", "SELECT count(*) FROM metric_points"),
                ("metric_tiers", "SELECT sum(points) FROM metric_tiers WHERE tier = 4096"),
            ):
                found = connection.execute(query).fetchone()  # type: ignore[arg-type]
                if found is None or found[0] != self._sent:
                    raise SystemExit(f"{name} holds {found} points of {self._sent} that were sent")

    def close(self) -> None:
        self._pool.shutdown()
        for client in self._clients:
            client.close()

    def _send(self, number: int, batches: list[dict[str, Series]]) -> None:
        for series in batches:
            body = MetricBatch.model_construct(series=series).model_dump_json()
            answer = self._clients[number].post(
                f"attempts/{self._attempts[number]}/metrics", content=body, headers={"Content-Type": "application/json"}
            )
            answer.raise_for_status()


def _series(steps: range) -> Series:
    return Series(steps=list(steps), values=[2.5 + s * 1e-6 for s in steps], at=[1.7e9 + s * 1e-3 for s in steps])


class Theirs:
    """mlflow's client, in mlflow's environment."""

    def __init__(self, python: Path, address: str, writers: int) -> None:
        script = Path(__file__).with_name("ingest_mlflow_client.py")
        self._process = subprocess.Popen(
            [python, script, address, str(writers), str(MLFLOW_BATCH_POINTS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=_quiet(),
        )
        self.version = self._read()["version"]
        self._next_step = 0

    def write(self, writers: int, steps: int) -> float:
        """Seconds until the last answer."""
        asked = {"writers": writers, "first_step": self._next_step, "steps": steps, "keys": KEYS, "value": 2.5}
        self._next_step += steps
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return self._read()["seconds"]

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"mlflow's client ended with {self._process.wait(10)}")
        return json.loads(line)


def mlflow_environment() -> Path:
    """Its Python. Made when missing."""
    python = ENVIRONMENT / "bin" / "python"
    uv = shutil.which("uv", path=f"{CACHED_UV}{os.pathsep}{os.environ.get('PATH', '')}")
    if not (ENVIRONMENT / "bin" / "mlflow").exists():
        if uv is None:
            raise SystemExit("uv is not on the PATH; it makes mlflow's environment: run `make dev`, which fetches it")
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, ENVIRONMENT], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", python, MLFLOW, "psycopg2-binary"], check=True)
    return python


@contextmanager
def mlflow_server(dsn: str, python: Path, folder: Path) -> Iterator[str]:
    """Its address. Workers as mlflow chooses them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    store = dsn.replace("postgresql://", "postgresql+psycopg2://", 1)
    command = [python.parent / "mlflow", "server", "--backend-store-uri", store, "--artifacts-destination", folder / "mlflow",
               "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
    log_path = folder / "mlflow.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=_quiet(), cwd=folder)
        try:
            address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
            while not _answers(f"{address}/health"):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(log_path.read_text())
                time.sleep(0.2)
            yield address
        finally:
            process.terminate()
            process.wait(20)


_DURABILITY = ("fsync", "synchronous_commit", "full_page_writes", "server_version")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def _quiet() -> dict[str, str]:
    """Neither side calls home; mlflow's environment is not mixed with ours."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    kept["PATH"] = f"{ENVIRONMENT / 'bin'}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--points", type=int, default=40_000, help="in a round, on each side")
    parser.add_argument("--writers", type=int, default=4, help="runs that write at once, beside the case of one")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
