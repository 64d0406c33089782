"""Keeps the stacks of a rank that does not move: py-spy from outside, else the stage's own fault handler."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from os import kill
from pathlib import Path

from abruzzi_operators.launcher.procfs import catches_signal, descendants

PY_SPY_SECONDS = 15.0
FAULT_HANDLER_SECONDS = 10.0
POLL_SECONDS = 0.05


def dump_stacks(rank_dir: Path, *, rank_pid: int) -> None:
    """Appends to stacks.txt, and to the rank's log, where people look. What could not be had is said there too."""
    stacks = rank_dir / "stacks.txt"
    before = stacks.stat().st_size if stacks.exists() else 0
    text, refusal = _by_py_spy([rank_pid, *descendants(rank_pid)])
    if not text and _by_fault_handler(stacks, rank_pid=rank_pid, size_before=before):
        text = stacks.read_text(errors="replace")[before:]
    elif not text:
        text = f"No stacks of process {rank_pid}: {refusal}\n"
        _append(stacks, text)
    else:
        _append(stacks, text)
    header = f"abruzzi: no progress; stacks at {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}:\n"
    _append(rank_dir / "output.log", header + text.rstrip("\n") + "\n")


def _by_py_spy(pids: list[int]) -> tuple[str, str]:
    """(stacks of all Python processes among `pids`, why there are none)."""
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if program is None:
        return "", "py-spy is not installed."
    found, refusal = "", ""
    for pid in pids:
        try:
            result = subprocess.run(
                [program, "dump", "--pid", str(pid)],
                capture_output=True,
                text=True,
                timeout=PY_SPY_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            refusal = f"py-spy took longer than {PY_SPY_SECONDS:.0f} s."
            continue
        if result.returncode == 0:
            found += result.stdout
        else:
            refusal = (result.stderr.strip().splitlines() or ["py-spy failed."])[-1]
    return found, refusal


def _by_fault_handler(stacks: Path, *, rank_pid: int, size_before: int) -> bool:
    """SIGUSR1 to a process that has registered for it (anything else would die of it)."""
    if not catches_signal(rank_pid, signal.SIGUSR1):
        return False
    with suppress(ProcessLookupError):
        kill(rank_pid, signal.SIGUSR1)
    deadline = time.monotonic() + FAULT_HANDLER_SECONDS
    size = size_before
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        before, size = size, stacks.stat().st_size if stacks.exists() else size_before
        if size == before > size_before:  # it is written in pieces, and grows no more
            return True
    return size > size_before


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)
