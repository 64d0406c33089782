"""Python programs: they compile, and the examples in their docstrings come out as written, in a sandbox without network.

A text that cannot be run alone (its imports are not there) is not judged. A text may cheat in its own examination, since it runs
in the process that examines it; out of the box it gets nothing either way.
"""

from __future__ import annotations

import ast
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Literal

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.sandbox import Box, Limits, isolators, python_files, run

Verdict = Literal["passed", "no_examples", "not_runnable", "failed", "timed_out"]
LIMITS = Limits(memory_bytes=1 << 30, file_bytes=16 << 20, processes=32)
_WALL_FACTOR = 6.0
"""Wall time over CPU time: a busy machine must not change a verdict."""
_EXAMINER = """
import doctest, io, json, sys, types
text = open("program.py", encoding="utf-8").read()
module = types.ModuleType("program")
sys.modules["program"] = module
try:
    exec(compile(text, "program.py", "exec"), module.__dict__)
    tests = doctest.DocTestFinder(exclude_empty=True).find(module, "program")
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    told = io.StringIO()
    for test in tests:
        runner.run(test, out=told.write)
    verdict = "failed" if runner.failures else "passed" if runner.tries else "no_examples"
except ImportError:
    verdict = "not_runnable"
except Exception:
    verdict = "failed"
print("\\n" + json.dumps(verdict), file=sys.__stdout__, flush=True)
"""


def compiles(text: str) -> bool:
    """For the Python that runs this."""
    return parsed(text) is not None


def parsed(text: str) -> ast.Module | None:
    """None where the Python that runs this cannot."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def examine(text: str, *, cpu_seconds: int = 10) -> Verdict:
    """Runs the program and its doctests. Raises AbruzziError `no_sandbox` where this machine cannot hold one."""
    if ">>>" not in text:
        return "no_examples"
    with tempfile.TemporaryDirectory(prefix="abruzzi-examine-") as folder:
        workspace = Path(folder) / "work"
        workspace.mkdir()
        (workspace / "program.py").write_text(text, encoding="utf-8", errors="replace")
        (workspace / "examiner.py").write_text(_EXAMINER, encoding="utf-8")
        limits = Limits(**{**LIMITS.__dict__, "cpu_seconds": cpu_seconds})
        box = Box(
            workspace=workspace, readable=python_files(), limits=limits, environment={"OPENBLAS_NUM_THREADS": "1"}
        )
        done = run(box, [sys.executable, "-B", "examiner.py"], wall_seconds=cpu_seconds * _WALL_FACTOR)
    if done.ending == "timed_out" or done.exit_code in (128 + 9, 128 + 24):
        return "timed_out"
    try:
        verdict = json.loads(done.stdout.decode("utf-8", "replace").strip().rpartition("\n")[2])
    except ValueError:
        return "failed"
    return verdict if verdict in ("passed", "no_examples", "not_runnable") else "failed"


def refuse_without_sandbox() -> None:
    """Before any work: nothing is run that nobody has read unless a box holds it."""
    if not isolators():
        raise AbruzziError(
            "no_sandbox",
            "data.validation.python: doctests are run in a sandbox, and this machine cannot hold one.",
            hint='Allow unprivileged user namespaces, run as root, install gVisor, or set python = "compile".',
        )
