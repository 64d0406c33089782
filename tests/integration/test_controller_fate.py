"""A controller whose stages live in its own container: at its end they save, the next one lets the runs go on, and its secrets are not theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from executor_bench import IGNORES_TERM, WAITS_FOR_FILE, Bench, open_bench

from abruzzi.contracts.stage import DirectoryStore as DirectoryConfig
from abruzzi.contracts.states import RunState
from abruzzi.kit.db import transaction
from abruzzi.runs import query, submit
from abruzzi.store import DirectoryStore
from abruzzi_operators.executors.attempt_dir import AttemptDir

DEADLINE_SECONDS = 240.0
RECIPE = """
version = 1
name = "one"
[[stage]]
id = "work"
kind = "container"
[stage.container]
command = ["python", "-u", "-c", '''{code}''']
"""


class Container:
    """`abruzzi-controller` as a container starts it, over a real database."""

    def __init__(self, database, bench: Bench) -> None:
        self.database, self.bench, self.home = database, bench, bench.home
        self.log = bench.home / "controller.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "ABRUZZI_HOME": str(self.home),
            "ABRUZZI_URL": self.bench.api.url,
            "ABRUZZI_CONTROLLER_DATABASE_URL": self.database.url("controller"),
            "ABRUZZI_STORE": DirectoryConfig(root=str(self.home / "store")).model_dump_json(),
            "ABRUZZI_STAGES_END_WITH_CONTROLLER": "true",
        }
        command = [sys.executable, "-m", "abruzzi_operators.controller.main"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        return self.process

    async def submit(self, code: str) -> str:
        async with self.database.sessions() as sessions, transaction(sessions) as session:
            made = await submit.submit(
                session, project_id="default", objects=DirectoryStore(self.home / "store"), recipe_toml=RECIPE.format(code=code),
                actor="me", now=datetime.now(UTC),
            )  # fmt: skip
            return made.id

    async def state(self, run_id: str) -> RunState:
        async with self.database.sessions() as sessions, transaction(sessions) as session:
            return (await query.get(session, run_id, now=datetime.now(UTC))).state

    def attempt(self, run_id: str, number: int) -> AttemptDir:
        return AttemptDir(self.home / "attempts" / f"{run_id}-work-{number}")

    def printed(self, run_id: str, number: int) -> str:
        log = self.attempt(run_id, number).path / "rank-0" / "output.log"
        return log.read_text() if log.exists() else ""

    def until(self, condition: Callable[[], object]) -> None:
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < DEADLINE_SECONDS, self.log.read_text()
            time.sleep(0.05)


@pytest.fixture
def container(database, tmp_path: Path) -> Iterator[Container]:
    with open_bench(tmp_path) as bench:
        made = Container(database, bench)
        yield made
        if made.process is not None and made.process.poll() is None:
            made.process.kill()
            made.process.wait()


async def test_a_container_that_is_stopped_saves_and_the_next_one_goes_on(container: Container) -> None:
    run_id = await container.submit(WAITS_FOR_FILE)
    process = container.start()
    container.until(lambda: "ready" in container.printed(run_id, 1))
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_SECONDS) == 0
    assert container.printed(run_id, 1) == "ready\nsaved\n"
    assert await container.state(run_id) is RunState.INTERRUPTED
    container.start()
    container.until(lambda: "ready" in container.printed(run_id, 2))
    (container.attempt(run_id, 2).path / "go").touch()
    container.until(lambda: container.attempt(run_id, 2).outcome())
    outcome = container.attempt(run_id, 2).outcome()
    assert outcome is not None
    assert outcome["exit_code"] == 0


async def test_a_second_request_does_not_wait_for_a_stage_that_does_not_listen(container: Container) -> None:
    run_id = await container.submit(IGNORES_TERM)
    process = container.start()
    container.until(lambda: "deaf" in container.printed(run_id, 1))
    process.send_signal(signal.SIGTERM)
    container.until(lambda: "asked 1 runs to save" in container.log.read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_SECONDS) == 0
    assert container.attempt(run_id, 1).outcome() is None
