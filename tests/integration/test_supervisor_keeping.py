"""The supervisor's own part, with small stand-ins for API and controller: starting, keeping alive, refusing, stopping, being killed."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from executor_bench import WAITS_FOR_FILE, open_bench
from ports import free_port

from abruzzi_operators.executors.attempt_dir import AttemptDir
from abruzzi_operators.launcher.procfs import start_time
from abruzzi_operators.supervisor.home import private_directory

DEADLINE_SECONDS = 240.0
STAND_INS = """
import http.server, os, signal, sys

def api():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
    http.server.ThreadingHTTPServer((os.environ["ABRUZZI_HOST"], int(os.environ["ABRUZZI_PORT"])), Handler).serve_forever()

def controller():
    if os.environ.get("BROKEN_CONTROLLER"):
        raise SystemExit("the controller has no heart")
    signal.pause()

def nothing():
    return 0

def interrupt():
    return 1 if os.environ.get("RUNS_CANNOT_BE_TOLD") else 0
"""
UP = """
import asyncio, os, sys
from pathlib import Path
from abruzzi.contracts.errors import AbruzziError
from abruzzi_operators.supervisor import supervise

if os.environ.get("NO_SECOND_START_OF"):
    start, started = supervise.PythonChild.start, []
    async def once(child):
        if child.name in started and child.name == os.environ["NO_SECOND_START_OF"]:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.append(child.name)
        return await start(child)
    supervise.PythonChild.start = once

supervise.API_TARGET, supervise.CONTROLLER_TARGET = "standins:api", "standins:controller"
supervise.PREPARE_TARGET, supervise.INTERRUPT_TARGET = "standins:nothing", "standins:interrupt"
port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
try:
    say = lambda text: print(text, flush=True)
    asyncio.run(supervise.Supervisor(Path(sys.argv[1]), port=port, say=say, show_token="HIDE_TOKEN" not in os.environ).run())
except AbruzziError as error:
    raise SystemExit(str(error))
"""


class Up:
    def __init__(self, tmp_path: Path) -> None:
        self.home, self.output = tmp_path / "home", tmp_path / "output"
        (tmp_path / "standins.py").write_text(STAND_INS)
        (tmp_path / "up.py").write_text(UP)
        self.tmp_path = tmp_path
        self.process: subprocess.Popen[bytes] | None = None
        self.port: int | None = None

    def start(self, **environment: str) -> None:
        with self.output.open("wb") as output:
            self.process = self.popen(output, *(map(str, [self.port] if self.port else [])), **environment)
        self.until(lambda: self.up() is not None and self.up()["pid"] == self.pid)

    def start_on_terminal(self, **environment: str) -> int:
        """The terminal's other end: closing it is closing the window."""
        window, terminal = pty.openpty()
        self.output.touch()
        take = functools.partial(fcntl.ioctl, terminal, termios.TIOCSCTTY, 0)
        self.process = self.popen(terminal, start_new_session=True, preexec_fn=take, **environment)
        os.close(terminal)
        self.until(lambda: self.up() is not None and self.up()["pid"] == self.pid)
        return window

    def popen(
        self, output: Any, *arguments: str, start_new_session: bool = False, preexec_fn: Any = None, **environment: str
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, str(self.tmp_path / "up.py"), str(self.home), *arguments],
            stdout=output, stderr=subprocess.STDOUT, start_new_session=start_new_session, preexec_fn=preexec_fn,
            env={**os.environ, "PYTHONPATH": str(self.tmp_path), **environment},
        )  # fmt: skip

    def refused(self, *arguments: str, **environment: str) -> str:
        """What an `up` that does not start says."""
        process = self.popen(subprocess.PIPE, *arguments, **environment)
        try:
            output, _ = process.communicate(timeout=DEADLINE_SECONDS)
        finally:
            process.kill()
        assert process.returncode == 1
        return output.decode()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def up(self) -> Any:
        try:
            return json.loads((self.home / "up.json").read_text())
        except FileNotFoundError:
            return None

    def until(self, condition: Callable[[], object]) -> float:
        """Seconds that it took."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < DEADLINE_SECONDS, f"not in time; it said:\n{self.output.read_text()}"
            time.sleep(0.01)
        return time.monotonic() - began

    def answers(self) -> bool:
        try:
            return urllib.request.urlopen(self.up()["url"], timeout=DEADLINE_SECONDS).status == 200
        except OSError:
            return False

    def left_over(self) -> list[str]:
        """Command lines of processes that belong to this test and still run."""
        found = []
        for process in psutil.process_iter():
            try:
                mine = str(self.tmp_path) in " ".join(process.cmdline()) or process.cwd().startswith(str(self.tmp_path))
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


def open_to_others(home: Path) -> list[Path]:
    """Directories and files of the supervisor's own that somebody else could enter or read. (PostgreSQL keeps its own closed.)"""
    found = [home, *home.iterdir(), *(home / "logs").iterdir()]
    return [path for path in found if path.stat().st_mode & 0o077 and path.name != "store"]


@pytest.fixture
def attempt(platform: Up) -> Iterator[AttemptDir]:
    """A rank that saves when it is told to stop, running in the platform's home."""
    with open_bench(platform.home) as bench:
        spec = bench.spec(WAITS_FOR_FILE)
        attempt = AttemptDir(bench.directory(spec))
        attempt.create(spec, token="token", url=bench.api.url)
        launcher = attempt.ensure_launcher()
        log = attempt.path / "rank-0" / "output.log"
        platform.output.touch()
        platform.until(lambda: log.exists() and "ready" in log.read_text())
        yield attempt
    assert launcher is not None
    launcher.wait(DEADLINE_SECONDS)


def assert_saved(attempt: AttemptDir) -> None:
    outcome = attempt.outcome()
    assert outcome is not None
    assert outcome["exit_code"] == 143, outcome
    assert (attempt.path / "rank-0" / "output.log").read_text() == "ready\nsaved\n"


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path)
    yield up
    if up.process is not None and up.process.poll() is None:
        up.process.send_signal(signal.SIGTERM)
        up.process.wait(DEADLINE_SECONDS)
    up.output.touch()
    up.until(lambda: up.left_over() == [])


def test_the_first_start_makes_the_home_private_and_prints_the_address_with_the_token_in_the_fragment(
    platform: Up,
) -> None:
    platform.start()
    token = (platform.home / "token").read_text().strip()
    assert platform.output.read_text().startswith(f"Dashboard  {platform.up()['url']}/#token={token}\n")
    assert open_to_others(platform.home) == []


def test_a_home_that_was_open_is_closed_and_one_that_holds_other_things_is_left_alone(platform: Up) -> None:
    (platform.home / "logs").mkdir(parents=True, mode=0o755)
    (platform.home / "logs" / "up.log").write_text("Dashboard  http://127.0.0.1:1/#token=secret")
    (platform.home / "logs" / "up.log").chmod(0o644)
    (platform.home / "up.lock").touch(mode=0o600)
    platform.home.chmod(0o755)
    platform.start()
    assert open_to_others(platform.home) == []
    shared = platform.tmp_path / "shared"
    shared.mkdir(mode=0o755)
    (shared / "somebody's.txt").touch()
    private_directory(shared)
    assert shared.stat().st_mode & 0o777 == 0o755


def test_where_nobody_sits_at_a_terminal_the_token_is_not_printed(platform: Up) -> None:
    platform.start(HIDE_TOKEN="1")
    token = (platform.home / "token").read_text().strip()
    said = platform.output.read_text()
    assert token not in said
    assert f"(the token is in {platform.home / 'token'})" in said


@pytest.mark.parametrize("name", ["postgres", "api", "controller"])
def test_each_child_that_is_killed_is_back(platform: Up, name: str) -> None:
    """In which time: test_back_in_time.py."""
    platform.start()
    before = platform.up()["children"][name]
    os.kill(before, signal.SIGKILL)
    platform.until(lambda: f"{name:<10} ready again" in platform.output.read_text())
    assert platform.up()["children"][name] != before
    platform.until(platform.answers)


def test_a_second_up_on_the_same_home_is_refused_with_pid_and_address(platform: Up) -> None:
    platform.start()
    said = platform.refused()
    assert f"process {platform.pid}" in said
    assert platform.up()["url"] in said
    assert platform.answers()


def test_a_port_that_is_taken_is_named(platform: Up, tmp_path: Path) -> None:
    platform.start()
    port = platform.up()["url"].rpartition(":")[2]
    other = Up(tmp_path)
    other.home = tmp_path / "other"
    assert f"Port {port} of 127.0.0.1 cannot be used" in other.refused(port)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_everything_with_code_0_and_the_next_start_keeps_token_and_port(platform: Up, number: int) -> None:
    platform.port = free_port()  # which nobody takes meanwhile
    platform.start()
    url, token = platform.up()["url"], (platform.home / "token").read_text()
    assert platform.process is not None
    platform.process.send_signal(number)
    assert platform.process.wait(DEADLINE_SECONDS) == 0
    assert platform.left_over() == []
    assert platform.up() is None
    platform.port = None
    platform.start()
    assert (platform.up()["url"], (platform.home / "token").read_text()) == (url, token)


def test_when_the_supervisor_is_killed_its_children_go_and_the_next_start_works_at_once(platform: Up) -> None:
    platform.start()
    children = platform.up()["children"]
    os.kill(platform.pid, signal.SIGKILL)
    platform.start()
    assert platform.answers()
    platform.until(lambda: all(start_time(pid) is None for pid in children.values()))


def test_a_child_that_never_starts_ends_the_start_and_names_its_log(platform: Up) -> None:
    said = platform.refused(BROKEN_CONTROLLER="1")
    assert "the controller has no heart" in said
    assert str(platform.home / "logs" / "controller.log") in said


def test_a_stop_in_the_middle_of_the_start_leaves_nothing(platform: Up) -> None:
    with platform.output.open("wb") as output:
        platform.process = platform.popen(output)
    platform.until(lambda: "Dashboard" in platform.output.read_text())
    platform.process.send_signal(signal.SIGTERM)
    assert platform.process.wait(DEADLINE_SECONDS) == 0
    assert platform.left_over() == []


def test_when_the_terminal_is_closed_what_runs_saves(platform: Up, attempt: AttemptDir) -> None:
    window = platform.start_on_terminal(RUNS_CANNOT_BE_TOLD="1")
    assert platform.process is not None
    os.close(window)
    platform.process.wait(DEADLINE_SECONDS)
    assert_saved(attempt)


def test_when_the_supervisor_fails_what_runs_saves(platform: Up, attempt: AttemptDir) -> None:
    platform.start(NO_SECOND_START_OF="api", RUNS_CANNOT_BE_TOLD="1")
    assert platform.process is not None
    os.kill(platform.up()["children"]["api"], signal.SIGKILL)
    assert platform.process.wait(DEADLINE_SECONDS) == 1
    assert "Resource temporarily unavailable" in platform.output.read_text()
    assert_saved(attempt)


def test_when_the_controller_cannot_be_started_again_what_runs_saves_at_once(platform: Up, attempt: AttemptDir) -> None:
    platform.start(NO_SECOND_START_OF="controller", RUNS_CANNOT_BE_TOLD="1")
    assert platform.process is not None
    os.kill(platform.up()["children"]["controller"], signal.SIGKILL)
    assert platform.process.wait(DEADLINE_SECONDS) == 1
    assert_saved(attempt)


def test_a_stop_reaches_the_ranks_of_a_launcher_that_was_killed(platform: Up, attempt: AttemptDir) -> None:
    platform.start(RUNS_CANNOT_BE_TOLD="1")
    assert platform.process is not None
    launcher = attempt.read("launcher.json")
    assert launcher is not None
    os.kill(launcher["pid"], signal.SIGKILL)
    platform.until(lambda: not attempt.launcher_lives())
    platform.process.send_signal(signal.SIGTERM)
    assert platform.process.wait(DEADLINE_SECONDS) == 0
    assert_saved(attempt)
