"""The simulation's store on the contract's ground."""

from __future__ import annotations

import itertools

from simulation.memory_store import MemoryRunStore
from simulation.run_store_ground import Scenes

from abruzzi.contracts.states import RunState, StageState
from abruzzi.engine.view import Desired, RunView, StageView


class MemoryGround(Scenes):
    def __init__(self, at: float = 1_767_225_600.0) -> None:
        self._at = at
        self._numbers = itertools.count(1)
        self.store = MemoryRunStore([], now=self.now)

    def now(self) -> float:
        return self._at

    def turn(self, seconds: float) -> None:
        self._at += seconds

    async def submit(self, run_id: str | None = None) -> str:
        run_id = run_id or self._new_id()
        stages = (
            StageView("first", StageState.WAITING, world_size=2),
            StageView("second", StageState.WAITING, needs=("first",)),
            StageView("third", StageState.WAITING, needs=("second",), gate="second.score <= 2.0"),
        )
        self.store.add(RunView(run_id, RunState.PENDING, Desired.RUN, 1, stages))
        return run_id

    async def cancel(self, run_id: str) -> None:
        self.store.cancel(run_id)

    async def interrupt(self) -> None:
        self.store.interrupt_all()

    async def resume(self) -> None:
        self.store.resume_interrupted()

    async def retry(self, run_id: str, stage_id: str | None = None) -> None:
        self.store.retry(run_id, stage_id)

    async def branch(self, parent_id: str, stage_id: str, name: str) -> str:
        self.store.branch(parent_id, stage_id, name, child_id=(child := self._new_id()))
        return child

    async def commit(self, attempt_id: str, name: str, **facts: float) -> None:
        self.store.commit(attempt_id, name, facts)

    async def beat(self, attempt_id: str, rank: int, step: int, phase: str) -> None:
        self.store.beat(attempt_id, rank, step, phase)

    async def events(self, run_id: str) -> list[tuple[str, str, str]]:
        return [(told.kind, told.subject, told.state) for told in self.store.events[run_id]]

    async def outbox(self, run_id: str) -> list[str]:
        return [kind for kind, about in self.store.outbox if about == run_id]

    def _new_id(self) -> str:
        return f"r{next(self._numbers):09d}"
