"""The simulation's executor keeps the contract that the local one keeps with real processes."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

pytest.register_assert_rewrite("simulation.executor_contract")
from simulation.executor_contract import EndContract, LifeContract, Manner, RanksContract  # noqa: E402
from simulation.memory_executor import Fate, MemoryExecutor  # noqa: E402

from abruzzi.contracts.stage import DirectoryStore, StageSpec  # noqa: E402
from abruzzi.contracts.states import StageKind  # noqa: E402
from abruzzi.engine.view import Phase, Seen  # noqa: E402

NEVER = float("inf")


class MemoryPlace:
    def __init__(self) -> None:
        self._now = 1000.0
        self._fates: dict[str, Fate] = {}
        self.executor = MemoryExecutor(self._fates.__getitem__, now=lambda: self._now, rng=random.Random(0))

    def renew(self) -> None:
        self.executor = self.executor.successor()

    def spec(self, manner: Manner = "works", *, exit_code: int = 0) -> StageSpec:
        attempt_id = f"0123456789-work-{len(self._fates) + 1}"
        deaf = manner == "deaf"
        self._fates[attempt_id] = Fate(None if deaf else exit_code, NEVER, listens=not deaf)
        return StageSpec(
            project_id="default", run_id="0123456789", stage_id="work", attempt_id=attempt_id, epoch=len(self._fates), kind=StageKind.CONTAINER,
            config={}, store=DirectoryStore(root="memory"), output_prefix="projects/default/runs/0123456789/work/",
        )  # fmt: skip

    def finish(self, spec: StageSpec) -> None:
        process = self.executor.processes[spec.attempt_id]
        process.fate = replace(process.fate, seconds=0.0)
        self.executor.tick()

    async def kill(self, spec: StageSpec) -> None:
        self.executor.kill(spec.attempt_id)

    def beat(self, spec: StageSpec, step: int) -> None:
        process = self.executor.processes[spec.attempt_id]
        self._now = process.born_at + step
        self.executor.tick()

    def starts(self, spec: StageSpec) -> int:
        return self.executor.started.count(spec.attempt_id)

    async def until_working(self, spec: StageSpec) -> Seen:
        return await self._until(spec, Phase.RUNNING)

    async def until_exited(self, spec: StageSpec) -> Seen:
        return await self._until(spec, Phase.EXITED)

    async def look(self, spec: StageSpec) -> Seen:
        return (await self.executor.observe([spec.attempt_id]))[spec.attempt_id]

    async def _until(self, spec: StageSpec, phase: Phase) -> Seen:
        for _ in range(100):
            seen = await self.look(spec)
            if seen.phase is phase:
                return seen
            self._now += 1.0
            self.executor.tick()
        raise AssertionError(f"still {seen.phase}")


@pytest.fixture
def place() -> MemoryPlace:
    return MemoryPlace()


class TestLife(LifeContract):
    pass


class TestRanks(RanksContract):
    pass


class TestEnd(EndContract):
    pass
