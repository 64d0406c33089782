"""Child processes of the supervisor: started warm, watched without polling, restarted when they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

from abruzzi_operators.supervisor.postgres import EmbeddedPostgres
from abruzzi_operators.supervisor.postgres_binaries import guarded

WARM_START = Path(__file__).with_name("warm_start.py")
STOP_SECONDS = 10.0
LIVES_SECONDS = 0.3
"""A child that nobody can ask is taken for ready when it has lived this long."""


class Child(Protocol):
    name: str
    log_path: Path

    async def start(self) -> subprocess.Popen[bytes]:
        """From the main thread: the kernel ends a child when the thread that started it ends."""
        ...

    async def wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Returns when it serves. Cancelled when it ends."""
        ...

    async def stop(self, process: subprocess.Popen[bytes]) -> None: ...


class PythonChild:
    """A function of ours in a process of its own. `prepare` starts it as far as its imports; `start` lets it run."""

    def __init__(
        self,
        name: str,
        target: str,
        *,
        log_path: Path,
        environment: Mapping[str, str],
        ready: Callable[[], Awaitable[None]] | None = None,
        keeps_spare: bool = False,
    ) -> None:
        self.name = name
        self.log_path = log_path
        self._target = target
        self._environment = environment
        self._ready = ready
        self._keeps_spare = keeps_spare
        self._prepared: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        if self._prepared is not None and self._prepared.poll() is None:
            return
        command = [sys.executable, str(WARM_START), self._target]
        with self.log_path.open("ab") as log:
            # Crash-safe all of them, so the kernel may end them at once when the supervisor is killed: nothing hinders the next one.
            self._prepared = subprocess.Popen(
                guarded(command, identity="same", death_signal=signal.SIGKILL),
                env=dict(self._environment),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def start(self) -> subprocess.Popen[bytes]:
        self.prepare()
        process, self._prepared = self._prepared, None
        assert process is not None
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"go\n")
            process.stdin.close()
        return process

    async def wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        await (self._ready() if self._ready is not None else asyncio.sleep(LIVES_SECONDS))
        if self._keeps_spare:
            self.prepare()

    async def stop(self, process: subprocess.Popen[bytes]) -> None:
        self.drop_spare()
        await end(process, signal.SIGTERM, seconds=STOP_SECONDS)

    def drop_spare(self) -> None:
        """End what was prepared and never ran."""
        spare, self._prepared = self._prepared, None
        if spare is not None:
            with spare:
                spare.kill()


class PostgresChild:
    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self.name = "postgres"
        self.postgres = postgres
        self.log_path = postgres.log_path

    async def start(self) -> subprocess.Popen[bytes]:
        work = asyncio.ensure_future(asyncio.to_thread(self.postgres.initialize))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await work  # a thread cannot be cancelled; the directory is not given back before initdb has ended
            raise
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                self.postgres.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    async def wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        while not self.postgres.is_ready(process.pid):
            await asyncio.sleep(0.01)

    async def stop(self, process: subprocess.Popen[bytes]) -> None:
        await asyncio.to_thread(self.postgres.stop_process, process)
        self.postgres.release()


async def ended(process: subprocess.Popen[bytes]) -> int:
    """The return code, as soon as the kernel knows it."""
    if not hasattr(os, "pidfd_open"):
        return await asyncio.to_thread(process.wait)
    if process.poll() is None:
        descriptor = os.pidfd_open(process.pid)
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(descriptor, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
    return process.wait()


async def end(process: subprocess.Popen[bytes], number: int, *, seconds: float) -> None:
    """Ask by signal, then SIGKILL."""
    if process.poll() is not None:
        return
    process.send_signal(number)
    try:
        await asyncio.wait_for(ended(process), seconds)
    except TimeoutError:
        process.kill()
        await ended(process)


def describe(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def last_line(log_path: Path) -> str:
    try:
        lines = log_path.read_bytes()[-4096:].decode(errors="replace").strip().splitlines()
    except FileNotFoundError:
        lines = []
    return lines[-1].strip() if lines else "it is empty"
