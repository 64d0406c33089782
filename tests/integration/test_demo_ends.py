"""`abruzzi demo` told to end before it is over: the platform goes with it, what runs saves, and whoever insists need not wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from executor_bench import IGNORES_TERM, WAITS_FOR_FILE

END_SECONDS = 40.0
RECIPE = """
version = 1
name = "goes-on"
[[stage]]
id = "work"
kind = "container"
[stage.container]
command = ["python", "-u", "-c", '''{code}''']
"""


def _hear_ctrl_c() -> None:
    """Also where the tests themselves run in the background of a shell, which has its jobs ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Demo:
    def __init__(self, tmp_path: Path, code: str) -> None:
        self.home = tmp_path / "home"
        recipe = tmp_path / "recipe.toml"
        recipe.write_text(RECIPE.format(code=code))
        self.output = tmp_path / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "abruzzi.cli.main", "demo", "--home", str(self.home), "--recipe", str(recipe)],
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, "CI": "true"},
                preexec_fn=_hear_ctrl_c,
            )  # fmt: skip

    def printed(self) -> str:
        return "".join(path.read_text() for path in self.home.glob("attempts/*/rank-0/output.log"))

    def until(self, condition: Callable[[], object], seconds: float = 240.0) -> float:
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < seconds, self.output.read_text()
            time.sleep(0.02)
        return time.monotonic() - began

    def left_over(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            try:
                mine = str(self.home) in " ".join(process.cmdline()) or process.cwd().startswith(str(self.home))
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Demo]]:
    started: list[Demo] = []

    def start(code: str) -> Demo:
        started.append(Demo(tmp_path, code))
        return started[-1]

    yield start
    for demo in started:
        demo.process.kill()  # the kernel tells the platform, which ends in good order
        demo.process.wait()
        demo.until(lambda: demo.left_over() == [], seconds=240.0)  # noqa: B023


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_demo_that_is_told_to_end_saves_and_takes_its_platform_with_it(
    number: int, start: Callable[[str], Demo]
) -> None:
    demo = start(WAITS_FOR_FILE)
    demo.until(lambda: "ready" in demo.printed())
    demo.process.send_signal(number)
    assert demo.process.wait(240) != 0
    assert demo.printed() == "ready\nsaved\n"
    assert demo.left_over() == []


def test_a_second_ctrl_c_does_not_wait_for_a_stage_that_does_not_listen(start: Callable[[str], Demo]) -> None:
    demo = start(IGNORES_TERM)
    demo.until(lambda: "deaf" in demo.printed())
    demo.process.send_signal(signal.SIGINT)
    demo.until(lambda: "Ctrl-C again does not wait" in (demo.home / "logs" / "up.log").read_text())
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(END_SECONDS) != 0
    assert demo.left_over() == []
