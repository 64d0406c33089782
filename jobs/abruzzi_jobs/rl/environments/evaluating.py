"""Values of expressions in a box: files are put there, a preamble is run, and each expression's `repr` comes out. What is right is not in there.

One process evaluates one expression, so that none can spoil another's modules; the box's limits hold for each.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.sandbox import Box, Finished, Limits, isolators, python_files, run, scratch_folder

LIMITS = Limits(
    cpu_seconds=60,
    memory_bytes=1 << 30,
    file_bytes=16 << 20,
    processes=32,
    workspace_bytes=256 << 20,
    workspace_files=10_000,
)
_BESIDE_BYTES = 1 << 30
"""What the other processes of a box may take beside the one that takes the most."""
_OUTPUT_BYTES = 1 << 20
_REPR_AT_MOST = 20_000
_START_SECONDS = 60.0
_KILLED = 128 + signal.SIGKILL
_RUNNER = """
import json, os, resource, select, signal, sys, time
plan = json.loads(sys.stdin.read())
out = os.dup(1)
null = os.open("/dev/null", os.O_WRONLY)
os.dup2(null, 1), os.dup2(null, 2)
os.write(out, BEGUN)
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
    ended, told, end = False, b"", time.monotonic() + plan["wall_seconds"]
    while len(told) < 8 * plan["most"] and select.select([read], [], [], max(0, end - time.monotonic()))[0]:
        chunk = os.read(read, 65536)
        told += chunk
        if not chunk:
            ended = True
            break
    os.close(read)
    gone, status, used = os.wait4(child, os.WNOHANG)
    end = time.monotonic() + 2
    while ended and not told and not gone and time.monotonic() < end:
        time.sleep(0.001)
        gone, status, used = os.wait4(child, os.WNOHANG)
    if not gone:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    elif not told and status == signal.SIGKILL and used.ru_utime + used.ru_stime < plan["cpu_seconds"] - 0.5:
        told = b'["killed", "with time left"]'
    os.write(out, json.dumps([number, told.decode("utf-8", "replace")]).encode() + bytes([10]))
    if not told or told.startswith(b'["killed"'):
        break
"""


_BEGUN = b'"begun"\n'
_LATE_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The first expression that takes longer ends it all. As they are, a reward's deadline is far above, so that a loop without end is a wrong answer,
    not a reward that hangs."""

    cpu_seconds: int = 2
    wall_seconds: float = 10.0
    """Of one expression."""
    box_seconds: float | None = 25.0
    """Of all of them together; None: as many as they may take one by one, so that only a machine that stands still reaches it, or a program that has
    stopped what is to end it."""
    memory_bytes: int = LIMITS.memory_bytes


OF_A_REWARD = Bounds()


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    values: tuple[str | None, ...]
    """The `repr` of each; None where it raised, took too long, or came after one that did."""
    fault: str = ""
    """In words, of the first that has no value."""
    cut: str = ""
    """In words, where it was not the program that ended it but the box: its time for all of them ran out, or something was killed that had time left, while
    the kernel ended processes for the machine's memory. A program that kills itself, or what runs it, is wrong."""


def refuse_without_sandbox(name: str) -> None:
    """Nothing is run that nobody has read unless a box holds it."""
    if not isolators():
        raise AbruzziError(
            "no_sandbox",
            f"The environment {name} runs what a policy wrote, and this machine cannot hold a sandbox.",
            status=503,
            hint="Allow unprivileged user namespaces, run as root, or install gVisor.",
        )


def evaluate(
    files: Mapping[str, str], preamble: str, expressions: Sequence[str], bounds: Bounds = OF_A_REWARD
) -> Evaluated:
    """`files`: path below the workspace → text. Raises AbruzziError `no_sandbox`, `sandbox_failed`."""
    with scratch_folder("abruzzi-evaluate-") as folder:
        workspace, runner = folder / "work", folder / "runner" / "runner.py"
        workspace.mkdir()
        write_files(workspace, files)
        runner.parent.mkdir()
        runner.write_text(_RUNNER.replace("BEGUN", repr(_BEGUN)))
        plan = {
            "preamble": f"import sys; sys.path.insert(0, '/workspace')\n{preamble}",
            "expressions": list(expressions),
            "cpu_seconds": bounds.cpu_seconds,
            "wall_seconds": bounds.wall_seconds,
            "most": _REPR_AT_MOST,
        }
        box = Box(
            workspace=workspace,
            readable=(*python_files(), runner.parent),
            limits=replace(
                LIMITS,
                cpu_seconds=max(LIMITS.cpu_seconds, bounds.cpu_seconds),
                memory_bytes=bounds.memory_bytes,
                together_bytes=bounds.memory_bytes + _BESIDE_BYTES,
            ),
        )
        argv = [sys.executable, "-I", "-B", str(runner)]
        asked = json.dumps(plan).encode()
        box_seconds = bounds.box_seconds or _START_SECONDS + bounds.wall_seconds * len(expressions)
        done = run(box, argv, stdin=asked, wall_seconds=box_seconds, output_bytes=_OUTPUT_BYTES)
    cut = ended = ""
    if done.ending == "overfull":
        ended = "the program took more memory or disk than its box has"
    elif done.ending == "timed_out" and bounds.box_seconds is None and _was_stopped(done):
        ended = "the program stopped what was to end it"
    elif done.ending == "timed_out":
        cut = f"the box's {box_seconds:g} seconds ran out"
    elif done.exit_code == _KILLED:
        ended = "the program killed what ran it"
        cut = "the box was killed for the machine's memory" if done.machine_killed else ""
    return _read(done, expressions, cut, ended)


def _was_stopped(done: Finished) -> bool:
    """By what ran in it: the first line comes before any of that, and this machine did not stand still."""
    return done.stdout.startswith(_BEGUN) and done.late_seconds < _LATE_SECONDS


def write_files(workspace: Path, files: Mapping[str, str]) -> None:
    """Raises ValueError for a path that leaves the workspace."""
    for name, text in files.items():
        path = Path(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{name!r} is not below the workspace")
        (workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace / path).write_text(text, encoding="utf-8", errors="replace")


def _read(done: Finished, expressions: Sequence[str], cut: str, ended: str) -> Evaluated:
    """`ended`: by the box, for what the program did. Lines that are none of the runner's say nothing."""
    values: list[str | None] = [None] * len(expressions)
    fault = ""
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        try:
            number, told = json.loads(line)
            kind, value = json.loads(told) if told else ("took", "too long, or ended its process")
            if kind == "value":
                values[number] = str(value)
            else:
                cut = cut or (f"a program was killed {value}" if kind == "killed" and done.machine_killed else "")
                fault = fault or f"{expressions[number]} {kind} {value}"
        except (ValueError, TypeError, IndexError):
            continue
    fault = fault or cut or ended or "nothing came out"
    return Evaluated(values=tuple(values), fault=fault, cut=cut) if None in values else Evaluated(values=tuple(values))
