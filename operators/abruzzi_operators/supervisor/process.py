"""A running child, however it was started: its pid, its end without polling, signals to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from typing import Protocol


class Process(Protocol):
    pid: int

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the signal's number when one ended it."""
        ...

    async def wait(self) -> int:
        """The return code, as soon as the kernel knows it."""
        ...

    def send_signal(self, number: int) -> None: ...


class Direct:
    """A child of ours."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.popen = popen
        self.pid = popen.pid

    @property
    def returncode(self) -> int | None:
        return self.popen.poll()

    async def wait(self) -> int:
        if not hasattr(os, "pidfd_open"):
            return await asyncio.to_thread(self.popen.wait)
        if self.popen.poll() is None:
            descriptor = os.pidfd_open(self.pid)
            loop = asyncio.get_running_loop()
            gone = asyncio.Event()
            loop.add_reader(descriptor, gone.set)
            try:
                await gone.wait()
            finally:
                loop.remove_reader(descriptor)
                os.close(descriptor)
        return self.popen.wait()

    def send_signal(self, number: int) -> None:
        self.popen.send_signal(number)


class Forked:
    """A grandchild, whose forker says how it ended."""

    def __init__(self, pid: int, reports: asyncio.StreamReader) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._end = asyncio.create_task(self._read_end(reports))

    async def wait(self) -> int:
        return await asyncio.shield(self._end)

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def _read_end(self, reports: asyncio.StreamReader) -> int:
        line = await reports.readline()
        # No word: the forker itself was killed, and the kernel killed its child with it.
        self.returncode = int(line) if line else -signal.SIGKILL
        return self.returncode


async def end(process: Process, number: int, *, seconds: float) -> None:
    """Ask by signal, then SIGKILL."""
    if process.returncode is not None:
        return
    process.send_signal(number)
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        process.send_signal(signal.SIGKILL)
        await process.wait()


def describe(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
