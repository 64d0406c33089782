"""Real processes for tests of the local executor: an API that takes logs, commands that wait to be told, everything ended afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from abruzzi.contracts.pool import Capacity
from abruzzi.contracts.stage import DirectoryStore, StageSpec
from abruzzi.contracts.states import StageKind
from abruzzi.engine.view import Phase, Seen
from abruzzi_operators.executors import local
from abruzzi_operators.executors.local import LocalExecutor
from abruzzi_operators.launcher.procfs import start_time

DEADLINE_SECONDS = 240.0
WAITS_FOR_FILE = """
import os, signal, sys, time
def save(*_):
    print("saved", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
go = os.path.join(os.environ["ABRUZZI_ATTEMPT_DIR"], "go")
while not os.path.exists(go):
    time.sleep(0.02)
print("done", flush=True)
"""
IGNORES_TERM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
)


class LogApi:
    """Takes logs as the API does (by offset, 409 on a gap) and points; can be away."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.logs: dict[str, bytes] = {}
        self.points: dict[tuple[str, int], float] = {}
        """By key and step: a point that is sent twice is there once."""
        self.beats: list[dict[str, Any]] = []
        self.refuse_points = False
        self.tokens: set[str] = set()
        self.is_away = False
        self.swallow_answers = 0
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                api.tokens.add(self.headers["Authorization"])
                path, offset = urlsplit(self.path).path, int(parse_qs(urlsplit(self.path).query)["offset"][0])
                if api.is_away:
                    return self.answer(503, {"detail": "away"})
                known = api.logs.get(path, b"")
                if offset > len(known):
                    return self.answer(409, {"expected_offset": len(known)})
                assert known[offset : offset + len(body)] == body[: len(known) - offset]
                api.logs[path] = known + body[len(known) - offset :]
                if api.swallow_answers:
                    api.swallow_answers -= 1
                    self.close_connection = True
                    return None
                return self.answer(204, None)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.tokens.add(self.headers["Authorization"])
                if api.is_away:
                    return self.answer(503, {"detail": "away"})
                if urlsplit(self.path).path.endswith("/heartbeats"):
                    api.beats.append(body)
                    return self.answer(202, {})
                if api.refuse_points:
                    return self.answer(422, {"detail": "no such points"})
                for key, series in body["series"].items():
                    api.points.update(
                        {(key, step): value for step, value in zip(series["steps"], series["values"], strict=True)}
                    )
                return self.answer(202, {})

            def answer(self, status: int, body: dict[str, Any] | None) -> None:
                content = json.dumps(body).encode() if body is not None else b""
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer((host, 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://{host}:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def of(self, attempt_id: str, rank: int = 0) -> str:
        return self.logs.get(f"/api/v1/attempts/{attempt_id}/logs/{rank}", b"").decode()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class Bench:
    """An executor on a directory, replaceable by a new one, as after a crash of the control plane."""

    def __init__(self, home: Path, api: LogApi) -> None:
        self.home, self.api, self.number = home, api, 0
        self.capacity = Capacity(cpus=64.0, memory=1 << 40, share=1.0)
        """Of the next executor: what a test starts is not kept waiting."""
        self.renew()

    def renew(self) -> None:
        async def issue(spec: StageSpec) -> str:
            return f"token-of-{spec.attempt_id}"

        self.executor = LocalExecutor(
            self.home / "attempts", capacity=self.capacity, api_url=self.api.url, issue_token=issue
        )

    def spec(self, code: str, *, ranks: int = 1, env: dict[str, str] | None = None) -> StageSpec:
        self.number += 1
        command = ["python", "-u", "-c", code]
        return StageSpec(
            project_id="default", run_id="0123456789", stage_id="work", attempt_id=f"0123456789-work-{self.number}", epoch=self.number,
            kind=StageKind.CONTAINER, config={"container": {"command": command, "env": env or {}}}, world_size=ranks,
            store=DirectoryStore(root=str(self.home / "store")), output_prefix="projects/default/runs/0123456789/work/",
        )  # fmt: skip

    def directory(self, spec: StageSpec) -> Path:
        return self.home / "attempts" / spec.attempt_id

    def pid(self, spec: StageSpec, name: str) -> int:
        return json.loads((self.directory(spec) / name).read_text())["pid"]

    async def look(self, spec: StageSpec) -> Seen:
        return (await self.executor.observe([spec.attempt_id]))[spec.attempt_id]

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            await asyncio.sleep(0.02)

    async def until_printed(self, spec: StageSpec, text: str, rank: int = 0) -> None:
        """And until its shim has recorded who it is, which may be a moment later."""
        folder = self.directory(spec) / f"rank-{rank}"
        log, recorded = folder / "output.log", folder / "rank.json"
        await self.until(lambda: log.exists() and text in log.read_text() and recorded.exists())

    async def kill(self, spec: StageSpec, name: str) -> None:
        pid = self.pid(spec, name)
        os.kill(pid, signal.SIGKILL)
        await self.until(lambda: start_time(pid) is None)

    async def until_exited(self, spec: StageSpec) -> Seen:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (seen := await self.look(spec)).phase != Phase.EXITED:
            assert time.monotonic() < deadline, f"still {seen.phase}"
            await asyncio.sleep(0.02)
        return seen


@contextmanager
def open_bench(home: Path) -> Iterator[Bench]:
    """With an API of its own; whatever still runs at the end is killed."""
    api = LogApi()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for bound in ("REMOVE_SECONDS", "CREATE_SECONDS"):
                patch.setattr(local, bound, DEADLINE_SECONDS)
            yield Bench(home, api)
    finally:
        api.close()
        end_processes_of(str(home))


def end_processes_of(home: str) -> None:
    for process in psutil.process_iter():
        try:
            directory = process.environ().get("ABRUZZI_ATTEMPT_DIR", "")
            if home in " ".join(process.cmdline()) or directory.startswith(home):
                process.kill()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
