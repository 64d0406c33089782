"""A server in a child process, for engines whose work would stop the stage's event loop. The child's side is in serving.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.chat.servers.serving import ENV_PIPE

_START_SECONDS = 300.0
"""For weights that come from a slow disk, on a machine that does other things, too."""
STOP_SECONDS = 5.0
SERVING = "abruzzi_jobs.chat.servers.serving"
_EXCERPT = 600


@dataclass(slots=True)
class Child:
    url: str
    """Without a path."""
    key: str
    process: subprocess.Popen[bytes]
    log: Path

    def why_down(self) -> str | None:
        """A sentence where it has ended."""
        code = self.process.poll()
        return None if code is None else f"Its server ended with code {code}; its last words: {_tail(self.log)}"


@asynccontextmanager
async def child_server(
    name: str,
    module: str,
    settings: Mapping[str, Any],
    *,
    log: Path | None = None,
    start_seconds: float = _START_SECONDS,
) -> AsyncIterator[Child]:
    """`start(settings)` of a module, in a process of its own. Raises AbruzziError `no_endpoint` where it does not come up."""
    path = log or Path(tempfile.mkstemp(prefix=f"abruzzi-endpoint-{name}-", suffix=".log")[1])
    reading, writing = os.pipe()
    try:
        with path.open("ab") as output:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    f"from {SERVING} import serve_parent; from {module} import start; serve_parent(start)",
                ],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[writing],
                env=_environment() | {ENV_PIPE: str(writing)},
            )
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    key = secrets.token_urlsafe(24)
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already; what it said of that is in its log
            process.stdin.write(json.dumps({"key": key, **settings}).encode() + b"\n")
            process.stdin.flush()
        child = Child("", key, process, path)
        port = await _port(name, child, reading, start_seconds)
        child.url = f"http://127.0.0.1:{port}"
        await _healthy(name, child, start_seconds)
        yield child
    finally:
        await asyncio.to_thread(_end, process)
        if log is None:
            path.unlink(missing_ok=True)


async def _port(name: str, child: Child, pipe: int, seconds: float) -> int:
    """What the child says; the pipe is closed."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb")
    )
    try:
        line = await asyncio.wait_for(reader.readline(), seconds)
    except TimeoutError:
        raise _not_up(name, child, f"it said nothing for {seconds:g} s") from None
    finally:
        transport.close()
    try:
        said = json.loads(line)
    except ValueError:
        await asyncio.to_thread(_wait, child.process, STOP_SECONDS)
        raise _not_up(name, child, "it ended without a word") from None
    if "error" in said:
        raise AbruzziError(
            said.get("code", "no_endpoint"), f"Endpoint {name!r}: {said['error']}", hint=said.get("hint")
        )
    return int(said["port"])


async def _healthy(name: str, child: Child, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    async with aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with session.get(f"{child.url}/health", timeout=aiohttp.ClientTimeout(total=10)) as response:
                    if response.status == 200:
                        return
            if child.process.poll() is not None or time.monotonic() > deadline:
                raise _not_up(name, child, child.why_down() or f"it is not healthy after {seconds:g} s")
            await asyncio.sleep(0.1)


def _not_up(name: str, child: Child, why: str) -> AbruzziError:
    return AbruzziError(
        "no_endpoint",
        f"The server of endpoint {name!r} did not come up: {why}.",
        status=503,
        hint=f"What it wrote: {_tail(child.log)}",
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    if not _wait(process, STOP_SECONDS):
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _tail(log: Path) -> str:
    try:
        content = log.read_bytes()[-_EXCERPT:]
    except OSError:
        return "(nothing)"
    return " ".join(content.decode("utf-8", "replace").split()) or "(nothing)"


def _environment() -> dict[str, str]:
    """A server of ours needs none of the stage's secrets. The rest stays: by it the platform knows the attempt's processes."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("ABRUZZI_SECRET", "AWS_"))}
