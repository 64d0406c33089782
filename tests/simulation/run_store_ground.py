"""The ground that a RunStore stands on in its contract: its clock, and the hands of people, stages and processes."""

from __future__ import annotations

from typing import Protocol

from abruzzi.contracts.states import AttemptState, RunState, StageState
from abruzzi.engine.actions import CreateAttempt, SetAttempt, SetRun, SetStage
from abruzzi.engine.ports import Lease, RunStore


class Ground(Protocol):
    """Runs are a chain of three stages, `first` (two ranks) → `second` → `third`."""

    store: RunStore

    def now(self) -> float: ...

    def turn(self, seconds: float) -> None:
        """Let time pass."""
        ...

    async def submit(self) -> str: ...

    async def cancel(self, run_id: str) -> None: ...

    async def interrupt(self) -> None:
        """The platform goes down."""
        ...

    async def resume(self) -> None:
        """It is up again."""
        ...

    async def retry(self, run_id: str, stage_id: str | None = None) -> None: ...

    async def branch(self, parent_id: str, stage_id: str, name: str) -> str:
        """From the stage's checkpoint of that name."""
        ...

    async def commit(self, attempt_id: str, name: str, **facts: float) -> None:
        """What the attempt's process commits to the object store: a checkpoint that carries numbers."""
        ...

    async def beat(self, attempt_id: str, rank: int, step: int, phase: str) -> None: ...

    async def events(self, run_id: str) -> list[tuple[str, str, str]]:
        """(kind, attempt or stage or "", state or artifact's name), as a reader gets them."""
        ...

    async def outbox(self, run_id: str) -> list[str]:
        """Kinds of the messages about the run."""
        ...

    async def leased(self) -> tuple[str, Lease]: ...

    async def failed_second(self) -> str: ...


class Scenes:
    """What several behaviours begin with."""

    async def leased(self: Ground) -> tuple[str, Lease]:
        """A new run under a long lease."""
        run_id = await self.submit()
        for lease in await self.store.lease("one", limit=100, ttl_seconds=600):
            if lease.run_id == run_id:
                return run_id, lease
            await self.store.release(lease, wake_at=None)
        raise AssertionError("a new run is not due")

    async def failed_second(self: Ground) -> str:
        """A run whose `first` succeeded ({"rows": 7}), whose `second` failed with a checkpoint ({"score": 3}), given back."""
        run_id, lease = await self.leased()
        first, second = f"{run_id}-first-1", f"{run_id}-second-1"
        run = await self.store.apply(lease, 1, [CreateAttempt("first", 1, 1), SetStage("first", StageState.RUNNING)])
        await self.commit(first, "step-00000001", rows=7.0)
        await self.store.collect_artifacts(lease, first)
        done = [SetAttempt(first, AttemptState.SUCCEEDED, exit_code=0), SetStage("first", StageState.SUCCEEDED)]
        run = await self.store.apply(lease, run.version, [*done, CreateAttempt("second", 1, 2)])
        await self.commit(second, "step-00000010", score=3.0)
        await self.store.collect_artifacts(lease, second)
        failed = [SetAttempt(second, AttemptState.FAILED, exit_code=64), SetStage("second", StageState.FAILED)]
        run = await self.store.apply(lease, run.version, [*failed, SetStage("third", StageState.SKIPPED)])
        await self.store.apply(lease, run.version, [SetRun(RunState.FAILED)])
        await self.store.release(lease, wake_at=None)
        return run_id
