"""Reused worker processes that compute rewards, each under a deadline. A reward that hangs costs its own trajectory and one process.

Loading a reward's packages has a deadline of its own (the first use of sympy takes seconds); the deadline of a score is for the score alone, whatever
else waits for a worker. Neither SIGTERM nor an alarm is relied on: both wait until a loop in C ends.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Self

from abruzzi.contracts.rollout import Outcome, Status, Trajectory
from abruzzi_jobs.rl.environments.environment import Message
from abruzzi_jobs.rl.rewards.process import OUT_OF_MEMORY, WorkerGone, WorkerProcess

_TRIES = 2
"""A worker that died under a trajectory may have been killed by anybody: it is tried once more."""


@dataclass(slots=True)
class PoolStats:
    scored: int = 0
    """With a reward."""
    timeouts: int = 0
    """Each cost a process."""
    errors: int = 0
    deaths: int = 0
    """Workers that ended by themselves or by somebody's hand."""


class RewardPool:
    """`async with RewardPool(workers=2) as pool: outcome = await pool.score(trajectory, messages, state)`."""

    def __init__(
        self,
        *,
        workers: int = 2,
        deadline_seconds: float = 30.0,
        load_seconds: float = 120.0,
        memory_bytes: int = 4 << 30,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers: {workers}; at least one computes rewards")
        self.stats = PoolStats()
        self._deadline, self._load, self._memory = deadline_seconds, load_seconds, memory_bytes
        self._places: asyncio.Queue[WorkerProcess | None] = asyncio.Queue()
        self._workers = workers
        self._living: set[WorkerProcess] = set()

    async def __aenter__(self) -> Self:
        for _ in range(self._workers):
            self._places.put_nowait(None)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Kills what runs."""
        await asyncio.gather(*(worker.kill() for worker in self._living))
        self._living.clear()

    async def score(
        self,
        trajectory: Trajectory,
        messages: tuple[Message, ...],
        state: dict[str, Any],
        *,
        reward: str | None = None,
        deadline_seconds: float | None = None,
    ) -> Outcome:
        """`reward`: a reference, the task's environment's own where absent. Never raises for what a reward did: REWARD_TIMEOUT and REWARD_ERROR have
        none. A trajectory cut at its budget or turns keeps that status. Raises ValueError for one that did not end."""
        if not trajectory.status.counted:
            raise ValueError(f"{trajectory.id}: nothing is to be scored with status {trajectory.status.value}")
        question = {
            "reward": reward or trajectory.task.environment,
            "trajectory": trajectory.model_dump(mode="json"),
            "messages": list(messages),
            "state": state,
        }
        seconds = self._deadline if deadline_seconds is None else deadline_seconds
        found = await self._asked(question, seconds)
        if isinstance(found, Outcome):
            return found
        if "error" in found:
            self.stats.errors += 1
            return _without(Status.REWARD_ERROR, question["reward"], found["error"])
        self.stats.scored += 1
        outcome = Outcome.model_validate(found["outcome"])
        if outcome.status is Status.OK and trajectory.status is not Status.OK:
            return outcome.model_copy(update={"status": trajectory.status})
        return outcome

    async def _asked(self, question: dict[str, Any], seconds: float) -> dict[str, Any] | Outcome:
        """What a worker answered; the outcome where none did."""
        reference, gone = question["reward"], ""
        for _ in range(_TRIES):
            worker = await self._places.get()
            kept: WorkerProcess | None = None
            limit, verb = self._load, "loaded"
            try:
                if worker is None:
                    worker = await WorkerProcess.start(memory_bytes=self._memory)
                    self._living.add(worker)
                if reference not in worker.loaded:
                    answer = await worker.ask({"reward": reference}, seconds=limit)
                    if "error" in answer:
                        kept = worker
                        return answer
                    worker.loaded.add(reference)
                limit, verb = seconds, "scored"
                answer = await worker.ask(question, seconds=limit)
                kept = worker
                return answer
            except TimeoutError:
                self.stats.timeouts += 1
                return _without(Status.REWARD_TIMEOUT, reference, f"not {verb} in {limit:g} s; its process was killed")
            except WorkerGone as ended:
                self.stats.deaths += 1
                memory = f"exit code {OUT_OF_MEMORY}" in str(ended)
                gone = f"it ran out of its {self._memory >> 20} MiB of memory" if memory else f"its process: {ended}"
            finally:
                if worker is not None and kept is None:
                    self._living.discard(worker)
                    await worker.kill()
                self._places.put_nowait(kept)
        self.stats.errors += 1
        return _without(Status.REWARD_ERROR, reference, f"{gone}, {_TRIES} times")


def _without(status: Status, reference: str, detail: str) -> Outcome:
    return Outcome(status=status, version=reference, detail=detail)
