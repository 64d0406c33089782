"""What the supervisor keeps alive: PostgreSQL, and functions of ours in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

from abruzzi_operators.supervisor.postgres import EmbeddedPostgres
from abruzzi_operators.supervisor.postgres_binaries import guarded
from abruzzi_operators.supervisor.process import Direct, Forked, Process, end

FORKER = "abruzzi_operators.supervisor.forker"
STOP_SECONDS = 10.0
LIVES_SECONDS = 0.3
"""A child that nobody can ask is taken for ready when it has lived this long."""


class Child(Protocol):
    name: str
    log_path: Path

    async def start(self) -> Process:
        """From the main thread: the kernel ends a child when the thread that started it ends."""
        ...

    async def wait_ready(self, process: Process) -> None:
        """Returns when it serves. Cancelled when it ends."""
        ...


class PythonChild:
    """`prepare` imports the function in a forker; `start` forks it, the first time and after each kill."""

    def __init__(
        self,
        name: str,
        target: str,
        *,
        log_path: Path,
        environment: Mapping[str, str],
        ready: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._target = target
        self._environment = environment
        self._ready = ready
        self._forker: subprocess.Popen[bytes] | None = None
        self._reports: asyncio.StreamReader | None = None

    def prepare(self) -> None:
        if self._forker is not None and self._forker.poll() is None:
            return
        self._reports = None
        with self.log_path.open("ab") as log:
            # Crash-safe all of them, so the kernel may end them at once when the supervisor is killed: nothing hinders the next one.
            self._forker = subprocess.Popen(
                guarded([sys.executable, "-m", FORKER, self._target], identity="same", death_signal=signal.SIGKILL),
                env=dict(self._environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    async def start(self) -> Process:
        self.prepare()
        forker = self._forker
        assert forker is not None
        assert forker.stdin is not None
        if self._reports is None:
            self._reports = await _reader(forker)
        with contextlib.suppress(BrokenPipeError):
            forker.stdin.write(b"go\n")
            forker.stdin.flush()
        pid = await self._reports.readline()
        # A program whose import fails has no pid: its forker stands for it.
        return Forked(int(pid), self._reports) if pid else Direct(forker)

    async def wait_ready(self, process: Process) -> None:
        await (self._ready() if self._ready is not None else asyncio.sleep(LIVES_SECONDS))

    async def stop(self, process: Process | None) -> None:
        if process is not None:
            await end(process, signal.SIGTERM, seconds=STOP_SECONDS)
        forker, self._forker = self._forker, None
        if forker is not None:
            forker.kill()
            with contextlib.suppress(BrokenPipeError):
                forker.communicate()


class PostgresChild:
    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self.name = "postgres"
        self.postgres = postgres
        self.log_path = postgres.log_path

    async def start(self) -> Direct:
        work = asyncio.ensure_future(asyncio.to_thread(self.postgres.initialize))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await work  # a thread cannot be cancelled; the directory is not given back before initdb has ended
            raise
        with self.log_path.open("ab") as log:
            return Direct(
                subprocess.Popen(
                    self.postgres.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            )

    async def wait_ready(self, process: Process) -> None:
        while not self.postgres.is_ready(process.pid):
            await asyncio.sleep(0.01)

    async def stop(self, process: Process | None) -> None:
        if isinstance(process, Direct):
            await asyncio.to_thread(self.postgres.stop_process, process.popen)
        self.postgres.release()


def last_line(log_path: Path) -> str:
    try:
        lines = log_path.read_bytes()[-4096:].decode(errors="replace").strip().splitlines()
    except FileNotFoundError:
        lines = []
    return lines[-1].strip() if lines else "it is empty"


async def _reader(forker: subprocess.Popen[bytes]) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), forker.stdout)
    return reader
