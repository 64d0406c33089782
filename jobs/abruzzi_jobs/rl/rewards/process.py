"""The pool's side of one worker: asked with a deadline, killed when it is over, with all that it started."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from typing import Any

OUT_OF_MEMORY = 86
"""Exit code of a worker: what is left of a process that ran out of memory cannot be relied on."""
_LINE_BYTES = 1 << 22


class WorkerGone(Exception):
    """It ended by itself, or somebody killed it."""


class WorkerProcess:
    """Starts when it is entered into service by `start`. One question at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.loaded: set[str] = set()
        """Rewards whose code and packages it has."""

    @classmethod
    async def start(cls, *, memory_bytes: int) -> WorkerProcess:
        """In a session of its own, with this process's import path, so that one's own rewards are found."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "abruzzi_jobs.rl.rewards.worker",
            str(memory_bytes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
            start_new_session=True,
            env=environment,
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, question: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        """Raises TimeoutError, WorkerGone."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        async with asyncio.timeout(seconds):
            try:
                stdin.write(json.dumps(question).encode() + b"\n")
                await stdin.drain()
                line = await stdout.readline()
            except (ConnectionError, BrokenPipeError) as error:
                raise WorkerGone(str(error)) from error
            if not line.endswith(b"\n"):
                raise WorkerGone(_ending(await self._process.wait()))
        return json.loads(line)

    async def kill(self) -> None:
        """SIGKILL to its session, which nothing can ignore; then what is left of it is reaped."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()


def _ending(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
