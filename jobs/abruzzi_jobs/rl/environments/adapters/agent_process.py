"""An agent that is a process: told by its environment where the policy is, ended with everything that it started.

It has ended when the process has, by a pidfd, or a thread where there is none: whoever of its children holds its output open (a server in the background) is not waited for. Output is read
as it comes, and the last of it kept.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from abruzzi_jobs.rl.environments.adapters.program import Access

OUTPUT_BYTES = 1 << 16
"""Of each stream, the last ones; also what a pipe holds."""


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    output: str
    errors: str


async def run_agent(
    command: Sequence[str],
    access: Access,
    *,
    stdin: str = "",
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Ran:
    """With OPENAI_BASE_URL and OPENAI_API_KEY. Cancelled, it kills the process and its children. The program is trusted as the environment's own code is: what
    nobody has read belongs into a sandbox."""
    with ExitStack() as open_:
        given = open_.enter_context(tempfile.TemporaryFile())
        given.write(stdin.encode())
        given.seek(0)
        output, errors = (open_.enter_context(_LastBytes()) for _ in range(2))
        process = subprocess.Popen(
            command,
            stdin=given,
            stdout=output.write,
            stderr=errors.write,
            cwd=cwd,
            env={**os.environ, **(environment or {}), **access.environment},
            start_new_session=True,
        )
        try:
            async with _until_ended(process) as ended:
                await ended.wait()
                output.finish()
                errors.finish()
        finally:
            # The whole session: a shell's children outlive it otherwise.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        return Ran(code, output.text, errors.text)


@asynccontextmanager
async def _until_ended(process: subprocess.Popen[bytes]) -> AsyncIterator[asyncio.Event]:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    try:
        watched = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # not Linux; a sandboxed kernel without it; no descriptor left

        def wait() -> None:
            process.wait()
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=wait, name="agent", daemon=True).start()
        yield ended
        return
    try:
        loop.add_reader(watched, ended.set)
        yield ended
    finally:
        loop.remove_reader(watched)
        os.close(watched)


class _LastBytes:
    """The end of a stream that a process writes."""

    def __enter__(self) -> _LastBytes:
        self._read, self.write = os.pipe()
        os.set_blocking(self._read, False)
        self._kept = bytearray()
        asyncio.get_running_loop().add_reader(self._read, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._read)
        os.close(self._read)
        os.close(self.write)

    @property
    def text(self) -> str:
        return self._kept.decode("utf-8", "replace")

    def finish(self) -> None:
        """What the process left in the pipe. Others may go on writing: no more is read than a pipe holds."""
        left = OUTPUT_BYTES
        while left > 0 and (taken := self._take()):
            left -= taken

    def _take(self) -> int:
        try:
            found = os.read(self._read, OUTPUT_BYTES)
        except BlockingIOError:
            return 0
        self._kept += found
        del self._kept[:-OUTPUT_BYTES]
        return len(found)
