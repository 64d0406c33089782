"""Values of expressions in a box: files are put there, a preamble is run, and each expression's `repr` comes out. What is right is not in there.

One process evaluates one expression, so that none can spoil another's modules; the box's limits hold for each.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.sandbox import Box, Limits, isolators, python_files, run

LIMITS = Limits(cpu_seconds=60, memory_bytes=1 << 30, file_bytes=16 << 20, processes=32)
CPU_SECONDS, WALL_SECONDS = 2, 10.0
"""Of one expression; the first that takes longer ends it all. A reward's deadline is far above, so that a loop without end is a wrong answer, not a reward
that hangs."""
_BOX_SECONDS = 25.0
_OUTPUT_BYTES = 1 << 20
_REPR_AT_MOST = 20_000
_RUNNER = """
import json, os, resource, select, signal, sys, time
plan = json.loads(sys.stdin.read())
out = os.dup(1)
null = os.open("/dev/null", os.O_WRONLY)
os.dup2(null, 1), os.dup2(null, 2)
for number, expression in enumerate(plan["expressions"]):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read), os.close(out)
        resource.setrlimit(resource.RLIMIT_CPU, (plan["cpu_seconds"],) * 2)
        try:
            place = {}
            exec(plan["preamble"], place)
            said = ["value", repr(eval(expression, place))[: plan["most"]]]
        except BaseException as error:
            said = ["raised", type(error).__name__]
        data = json.dumps(said).encode()
        while data:
            data = data[os.write(write, data):]
        os._exit(0)
    os.close(write)
    told, end = b"", time.monotonic() + plan["wall_seconds"]
    while len(told) < 8 * plan["most"] and select.select([read], [], [], max(0, end - time.monotonic()))[0]:
        chunk = os.read(read, 65536)
        told += chunk
        if not chunk:
            break
    os.close(read)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.write(out, json.dumps([number, told.decode("utf-8", "replace")]).encode() + bytes([10]))
    if not told:
        break
"""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    values: tuple[str | None, ...]
    """The `repr` of each; None where it raised, took too long, or came after one that did."""
    fault: str = ""
    """In words, of the first that has no value."""


def refuse_without_sandbox(name: str) -> None:
    """Nothing is run that nobody has read unless a box holds it."""
    if not isolators():
        raise AbruzziError(
            "no_sandbox",
            f"The environment {name} runs what a policy wrote, and this machine cannot hold a sandbox.",
            status=503,
            hint="Allow unprivileged user namespaces, run as root, or install gVisor.",
        )


def evaluate(files: Mapping[str, str], preamble: str, expressions: Sequence[str]) -> Evaluated:
    """`files`: path below the workspace → text. Raises AbruzziError `no_sandbox`, `sandbox_failed`."""
    with tempfile.TemporaryDirectory(prefix="abruzzi-evaluate-") as folder:
        workspace, runner = Path(folder) / "work", Path(folder) / "runner" / "runner.py"
        workspace.mkdir()
        write_files(workspace, files)
        runner.parent.mkdir()
        runner.write_text(_RUNNER)
        plan = {
            "preamble": f"import sys; sys.path.insert(0, '/workspace')\n{preamble}",
            "expressions": list(expressions),
            "cpu_seconds": CPU_SECONDS,
            "wall_seconds": WALL_SECONDS,
            "most": _REPR_AT_MOST,
        }
        box = Box(workspace=workspace, readable=(*python_files(), runner.parent), limits=LIMITS)
        argv = [sys.executable, "-I", "-B", str(runner)]
        asked = json.dumps(plan).encode()
        done = run(box, argv, stdin=asked, wall_seconds=_BOX_SECONDS, output_bytes=_OUTPUT_BYTES)
    return _read(done.stdout.decode("utf-8", "replace"), expressions)


def write_files(workspace: Path, files: Mapping[str, str]) -> None:
    """Raises ValueError for a path that leaves the workspace."""
    for name, text in files.items():
        path = Path(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{name!r} is not below the workspace")
        (workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace / path).write_text(text, encoding="utf-8", errors="replace")


def _read(output: str, expressions: Sequence[str]) -> Evaluated:
    """Lines that are none of the runner's say nothing."""
    values: list[str | None] = [None] * len(expressions)
    fault = ""
    for line in output.splitlines():
        try:
            number, told = json.loads(line)
            kind, value = json.loads(told) if told else ("took", "too long, or ended its process")
            if kind == "value":
                values[number] = str(value)
            else:
                fault = fault or f"{expressions[number]} {kind} {value}"
        except (ValueError, TypeError, IndexError):
            continue
    return Evaluated(values=tuple(values), fault=fault or ("" if None not in values else "nothing came out"))
