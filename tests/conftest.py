"""Fixtures that every suite shares: a PostgreSQL for each xdist worker, and a whole platform whose parts a test may kill."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from hypothesis import settings

from abruzzi.client.client import Client
from abruzzi.client.transport import Unavailable
from abruzzi.contracts.resources import AttemptOut, RunOut
from abruzzi_operators.executors.attempt_dir import AttemptDir
from abruzzi_operators.launcher.procfs import start_time
from abruzzi_operators.supervisor.embedded import EmbeddedPlatform
from abruzzi_operators.supervisor.postgres import EmbeddedPostgres

T = TypeVar("T")
PATIENCE_SECONDS = 240.0
"""For what comes by itself, on a machine with much else to do. What must come in time is measured where it says so."""
_TESTS = Path(__file__).parent
_JOBS = _TESTS / "unit" / "abruzzi_jobs"
_COMPUTING = [
    _TESTS / "simulation",
    _TESTS / "parity",
    *(_JOBS / noun for noun in ("distributed", "evals", "models", "optim", "train")),
]
"""Folders of tests that have no deadline but their own patience."""
# A platform of tests keeps no stage waiting that stands still on purpose; tests/integration/test_machine_turns.py looks at the queue itself.
os.environ.setdefault("ABRUZZI_PARALLEL_STAGES", "64")
# A slow moment of the machine is no fault. (With CI=true hypothesis says so itself, and tries the same examples each time.)
settings.register_profile("patient", deadline=None)
if settings.get_current_profile_name() == "default":
    settings.load_profile("patient")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before `-m` chooses: what only computes, in whatever time it gets, is marked so (scripts/test)."""
    for item in items:
        waits_for_others = any(item.get_closest_marker(name) for name in ("serial", "s3"))
        if any(folder in item.path.parents for folder in _COMPUTING) and not waits_for_others:
            item.add_marker("computes")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A running server. `ABRUZZI_TEST_POSTGRES_BIN=/usr/lib/postgresql/15/bin` chooses other binaries than the wheel's.

    Commits survive a killed server; only fsync is off.
    """
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), durable=False) as server:
        yield server


class Disturbed:
    """A platform (`abruzzi up` in a process of its own) with hands to kill each part of it, for any recipe.

    run_id = disturbed.submit(recipe)
    disturbed.until(lambda: disturbed.step_of(run_id, "pretrain") >= 20)
    disturbed.kill("controller")
    run = disturbed.wait_end(run_id)
    """

    PARTS = ("controller", "api", "postgres", "supervisor", "launcher", "rank")

    def __init__(self, home: Path) -> None:
        self.platform = EmbeddedPlatform(home)
        self.home = home

    def client(self) -> Client:
        return Client(self.platform.url, self.platform.token, retry_seconds=30.0)

    def ask(self, question: Callable[[Client], T]) -> T:
        """The answer, also while the API is just being restarted."""
        with self.client() as client:
            return question(client)

    def submit(self, recipe_toml: str, overrides: Mapping[str, str] | None = None) -> str:
        return self.ask(lambda client: client.runs.submit(recipe_toml, overrides)).id

    def run(self, run_id: str) -> RunOut:
        return self.ask(lambda client: client.runs.get(run_id))

    def attempts(self, run_id: str, stage_id: str) -> list[AttemptOut]:
        return next(stage for stage in self.run(run_id).detail if stage.id == stage_id).attempts

    def until(self, condition: Callable[[], object], *, seconds: float = PATIENCE_SECONDS) -> float:
        """Seconds that it took. While the platform is away the condition counts as not true yet."""
        began = time.monotonic()
        while True:
            try:
                if condition():
                    return time.monotonic() - began
            except Unavailable:
                pass
            assert time.monotonic() - began < seconds, f"not true after {seconds:.0f} s\n{self.last_words()}"
            time.sleep(0.05)

    def wait_end(self, run_id: str, *, seconds: float = PATIENCE_SECONDS) -> RunOut:
        self.until(lambda: self.run(run_id).state.is_terminal, seconds=seconds)
        return self.run(run_id)

    def attempt_dir(self, attempt_id: str) -> AttemptDir:
        return AttemptDir(self.home / "attempts" / attempt_id)

    def newest_attempt(self, run_id: str, stage_id: str) -> AttemptDir | None:
        """By its directory, so that it can be asked while everything else is dead."""
        prefix = f"{run_id}-{stage_id}-"
        found = [p for p in (self.home / "attempts").glob(f"{prefix}*") if p.name.removeprefix(prefix).isdigit()]
        newest = max(found, key=lambda path: int(path.name.removeprefix(prefix)), default=None)
        return AttemptDir(newest) if newest else None

    def step_of(self, run_id: str, stage_id: str, rank: int = 0) -> int:
        """By the newest attempt's heartbeat file; -1 before the first."""
        attempt = self.newest_attempt(run_id, stage_id)
        beat = attempt.read(f"rank-{rank}/heartbeat.json") if attempt else None
        return int(beat["step"]) if beat else -1

    def printed(self, run_id: str, stage_id: str, rank: int = 0) -> str:
        """What the newest attempt's rank has printed so far, from its file."""
        attempt = self.newest_attempt(run_id, stage_id)
        log = attempt.path / f"rank-{rank}" / "output.log" if attempt else None
        return log.read_text() if log and log.exists() else ""

    def served_log(self, attempt_id: str, rank: int = 0) -> str:
        """The whole log as the API serves it."""
        with self.client() as client:
            return "".join(f"{line.text}\n" for line in client.logs.follow(attempt_id, rank=rank, poll_seconds=0.05))

    def pid(self, part: str, *, run_id: str = "", stage_id: str = "", rank: int = 0) -> int:
        if part == "supervisor":
            return self.platform.pid
        if part in ("controller", "api", "postgres"):
            return self.platform.children[part]
        attempt = self.newest_attempt(run_id, stage_id)
        assert attempt is not None, "no attempt yet"
        recorded = attempt.read({"launcher": "launcher.json"}.get(part, f"rank-{rank}/{part}.json"))
        assert recorded is not None, f"no {part} yet"
        return int(recorded["pid"])

    def kill(self, part: str, *, run_id: str = "", stage_id: str = "", rank: int = 0) -> None:
        """SIGKILL; returns when the process is dead. A killed supervisor is started again, as a person would."""
        if part == "supervisor":
            self.platform.kill()
            self.platform.start()
            return
        pid = self.pid(part, run_id=run_id, stage_id=stage_id, rank=rank)
        os.kill(pid, signal.SIGKILL)
        self.until(lambda: start_time(pid) is None)

    def until_back(self, part: str, *, before: int, seconds: float = PATIENCE_SECONDS) -> float:
        """Seconds until a child of the supervisor has another pid and the API answers."""
        return self.until(
            lambda: self.platform.children.get(part, before) != before and self._answers(), seconds=seconds
        )

    def last_words(self) -> str:
        """The ends of all logs, for the message of a failed test."""
        logs = [*(self.home / "logs").glob("*.log"), *(self.home / "attempts").glob("*/launcher.log")]
        return "\n".join(f"--- {log.name}\n{log.read_bytes()[-1500:].decode(errors='replace')}" for log in logs)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.platform.url}/readyz", timeout=2.0).is_success
        except httpx.TransportError:
            return False


@pytest.fixture
def disturbed(tmp_path: Path) -> Iterator[Disturbed]:
    """A running platform of one's own, ended with everything that it started, also when the test fails."""
    with _open_disturbed(tmp_path / "home") as opened:
        yield opened


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disturbed]:
    """As `disturbed`, one for all tests of a file: each makes a run of its own and leaves the platform standing."""
    with _open_disturbed(tmp_path_factory.mktemp("lasting") / "home") as opened:
        yield opened


@contextmanager
def _open_disturbed(home: Path) -> Iterator[Disturbed]:
    disturbed = Disturbed(home)
    try:
        disturbed.platform.start()
        yield disturbed
    finally:
        disturbed.platform.stop()
        end_attempts_below(home)


def end_attempts_below(home: Path) -> None:
    """Whatever a killed platform left running."""
    for path in [*home.glob("attempts/*/launcher.json"), *home.glob("attempts/*/rank-*/*.json")]:
        recorded: dict[str, Any] = json.loads(path.read_text())
        if "start_time" in recorded and start_time(int(recorded["pid"])) == recorded["start_time"]:
            with suppress(ProcessLookupError):
                os.kill(int(recorded["pid"]), signal.SIGKILL)
