"""An agent that is a process: told by its environment where the policy is, ended with everything that it started."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from abruzzi_jobs.rl.environments.adapters.program import Access

OUTPUT_BYTES = 1 << 16
"""Of each stream, the last ones."""


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
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=cwd,
        env={**os.environ, **(environment or {}), **access.environment},
        start_new_session=True,
    )
    try:
        output, errors = await process.communicate(stdin.encode())
    finally:
        # The whole session: a shell's children outlive it otherwise.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    assert process.returncode is not None
    return Ran(process.returncode, _last(output), _last(errors))


def _last(stream: bytes) -> str:
    return stream[-OUTPUT_BYTES:].decode("utf-8", "replace")
