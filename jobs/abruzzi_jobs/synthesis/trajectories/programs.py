"""The tool `python`: a program of the agent's, run to its end in a sandbox without network. Its folder stays for the conversation."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.sandbox import Box, Limits, python_files, run
from abruzzi_jobs.synthesis.schemas import value_fault

PYTHON_SOURCE = "sandbox:python"
PYTHON_TOOL = ToolSpec(
    name="python",
    description="Runs a Python program in a sandbox without network and returns what it prints. Files in the working folder stay until the end "
    "of the conversation.",
    input_schema={
        "type": "object",
        "properties": {"code": {"type": "string", "minLength": 1, "maxLength": 20000, "description": "The program."}},
        "required": ["code"],
        "additionalProperties": False,
    },
    source=PYTHON_SOURCE,
    licence="PSF-2.0",
)
_WALL_SECONDS = 10.0
_OUTPUT_BYTES = 8192


class Programs:
    """At most `at_once` run at a time: each is a process."""

    def __init__(self, at_once: int = 2) -> None:
        self._places = asyncio.Semaphore(at_once)

    @contextmanager
    def folder(self, files: Mapping[str, str]) -> Iterator[Path]:
        made = Path(tempfile.mkdtemp(prefix="abruzzi-program-"))
        try:
            write_files(made, files)
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)

    async def run(self, folder: Path, arguments: dict[str, Any]) -> tuple[bool, str]:
        """(whether it ended well, what it printed and how it ended)."""
        if fault := value_fault(arguments, PYTHON_TOOL.input_schema):
            return False, f"invalid_arguments: {fault}"
        async with self._places:
            return await asyncio.to_thread(_run, folder, arguments["code"])


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def _run(folder: Path, code: str) -> tuple[bool, str]:
    limits = Limits(cpu_seconds=int(_WALL_SECONDS), memory_bytes=512 << 20, file_bytes=16 << 20, processes=16)
    box = Box(workspace=folder, readable=python_files(), limits=limits)
    done = run(
        box,
        [sys.executable, "-I", "-"],
        stdin=code.encode("utf-8", "replace"),
        wall_seconds=_WALL_SECONDS,
        output_bytes=_OUTPUT_BYTES,
    )
    said = done.stdout.decode("utf-8", "replace")
    if done.ok:
        return True, said
    end = f"exit code {done.exit_code}" if done.ending == "exited" else done.ending.replace("_", " ")
    return False, f"{said}{done.stderr.decode('utf-8', 'replace')[-2000:]}\n({end})"
