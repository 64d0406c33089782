"""The pool's side of one worker: asked with a deadline, killed when it is over, with all that it started.

A process and a socket of our own, not asyncio's subprocess: that one waits for ever where it is cancelled while the process starts (its pipes are not
connected yet, and nobody wakes it), and a pool is cancelled at any time.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import Any

OUT_OF_MEMORY = 86
"""Exit code of a worker: what is left of a process that ran out of memory cannot be relied on."""
_LINE_BYTES = 1 << 22


class WorkerGone(Exception):
    """It ended by itself, or somebody killed it."""


class WorkerProcess:
    """One question at a time."""

    def __init__(
        self, child: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._child, self._reader, self._writer = child, reader, writer
        self.loaded: set[str] = set()
        """Rewards whose code and packages it has."""

    @classmethod
    async def start(cls, *, memory_bytes: int) -> WorkerProcess:
        """In a session of its own, with this process's import path, so that one's own rewards are found."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            child = subprocess.Popen(
                [sys.executable, "-m", "abruzzi_jobs.rl.rewards.worker", str(memory_bytes), str(number)],
                stdin=subprocess.DEVNULL,
                pass_fds=(number,),
                start_new_session=True,
                env=environment,
            )
        try:
            reader, writer = await asyncio.open_connection(sock=ours, limit=_LINE_BYTES)
        except BaseException:
            _kill(child)
            ours.close()
            child.wait()
            raise
        return cls(child, reader, writer)

    @property
    def pid(self) -> int:
        return self._child.pid

    async def ask(self, question: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        """Raises TimeoutError, WorkerGone."""
        async with asyncio.timeout(seconds):
            try:
                self._writer.write(json.dumps(question).encode() + b"\n")
                await self._writer.drain()
                line = await self._reader.readline()
            except ConnectionError as error:
                raise WorkerGone(await self._ending()) from error
            if not line.endswith(b"\n"):
                raise WorkerGone(await self._ending())
        return json.loads(line)

    async def kill(self) -> None:
        """SIGKILL to its session, which nothing can ignore; then what is left of it is reaped."""
        _kill(self._child)
        self._writer.close()
        await asyncio.to_thread(self._child.wait)

    async def _ending(self) -> str:
        code = await asyncio.to_thread(self._child.wait)
        return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


def _kill(child: subprocess.Popen[bytes]) -> None:
    """Only while it is not reaped: afterwards its number may be another's."""
    if child.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
