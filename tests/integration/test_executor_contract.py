"""The local executor, with real processes, keeps the contract that the simulation's executor keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("simulation.executor_contract")
from executor_bench import IGNORES_TERM, WAITS_FOR_FILE, Bench, open_bench  # noqa: E402
from simulation.executor_contract import EndContract, LifeContract, Manner, RanksContract  # noqa: E402

from abruzzi.contracts.stage import StageSpec  # noqa: E402
from abruzzi.engine.ports import Executor  # noqa: E402
from abruzzi.engine.view import Seen  # noqa: E402

COUNTS_ITSELF = "import os; open(os.environ['ABRUZZI_ATTEMPT_DIR'] + '/starts', 'a').write('.')\n"


class LocalPlace:
    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    @property
    def executor(self) -> Executor:
        return self._bench.executor

    def renew(self) -> None:
        self._bench.renew()

    def spec(self, manner: Manner = "works", *, exit_code: int = 0) -> StageSpec:
        deaf = f"{IGNORES_TERM}".replace("'deaf'", "'ready'")
        working = f"{WAITS_FOR_FILE}\nraise SystemExit({exit_code})"
        return self._bench.spec(COUNTS_ITSELF + (deaf if manner == "deaf" else working))

    def finish(self, spec: StageSpec) -> None:
        (self._bench.directory(spec) / "go").touch()

    async def kill(self, spec: StageSpec) -> None:
        await self._bench.kill(spec, "rank-0/rank.json")

    def beat(self, spec: StageSpec, step: int) -> None:
        beat = {"rank": 0, "step": step, "phase": "train", "at": 1.0}
        (self._bench.directory(spec) / "rank-0" / "heartbeat.json").write_text(json.dumps(beat))

    def starts(self, spec: StageSpec) -> int:
        counted = self._bench.directory(spec) / "starts"
        return len(counted.read_text()) if counted.exists() else 0

    async def until_working(self, spec: StageSpec) -> Seen:
        await self._bench.until_printed(spec, "ready")
        return await self.look(spec)

    async def until_exited(self, spec: StageSpec) -> Seen:
        return await self._bench.until_exited(spec)

    async def look(self, spec: StageSpec) -> Seen:
        return await self._bench.look(spec)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[LocalPlace]:
    with open_bench(tmp_path) as bench:
        yield LocalPlace(bench)


class TestLife(LifeContract):
    pass


class TestRanks(RanksContract):
    pass


class TestEnd(EndContract):
    pass
