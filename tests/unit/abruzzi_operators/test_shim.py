"""The shim alone: exit records, memory kills told by the counter, started at most once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from abruzzi_operators.launcher import shim

COUNTED = """
import sys
from abruzzi_operators.launcher import shim
counts = iter({counts})
shim.memory_kills = lambda: next(counts)
sys.exit(shim.main(sys.argv[1:]))
"""


def run_shim(directory: Path, *command: str, counts: tuple[int | None, ...] = (0, 0)) -> dict[str, Any]:
    script = COUNTED.format(counts=counts)
    subprocess.run(
        [sys.executable, "-c", script, str(directory), str(directory), "--", *command], check=True, timeout=240
    )
    return json.loads((directory / "exit.json").read_text())


@pytest.mark.parametrize(
    ("script", "counts", "code", "out_of_memory"),
    [
        ("kill -9 $$", (4, 5), 137, True),
        ("kill -9 $$", (4, 4), 137, False),
        ("kill -9 $$", (None, None), 137, False),
        ("kill -15 $$", (4, 5), 143, False),
        ("exit 137", (4, 5), 137, False),
        ("exit 3", (0, 0), 3, False),
        ("exit 0", (0, 0), 0, False),
    ],
)
def test_a_memory_kill_is_a_sigkill_that_the_kernel_counted(
    tmp_path: Path, script: str, counts: tuple[int | None, ...], code: int, out_of_memory: bool
) -> None:
    ended = run_shim(tmp_path, "sh", "-c", script, counts=counts)
    assert (ended["code"], ended["out_of_memory"]) == (code, out_of_memory)


def test_a_second_shim_starts_nothing(tmp_path: Path) -> None:
    run_shim(tmp_path, "sh", "-c", "echo once")
    run_shim(tmp_path, "sh", "-c", "echo twice")
    assert (tmp_path / "output.log").read_text() == "once\n"


def test_it_starts_without_site_packages(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", str(Path(shim.__file__)), str(tmp_path), str(tmp_path), "--", "true"]
    subprocess.run(command, check=True, timeout=240)
    assert json.loads((tmp_path / "exit.json").read_text())["code"] == 0
