"""Tasks of moderate difficulty (paper 3.2.1): before the first iteration the policy tries each candidate some times, and what lies in the band is played.

What was found stands in the object store, a lot an object, written once: another attempt goes on behind the last lot, and plays the same tasks.

    difficulty/lot-000003.json      [{"task": …, "rewards": [0.0, 1.0, null, …]}, …]; null: nobody can say
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.objective import DifficultyBand
from abruzzi.contracts.rollout import Task
from abruzzi.store import ObjectStore
from abruzzi_jobs.rl.controller.parts import Sampler, Scorer
from abruzzi_jobs.rl.objective.difficulty import in_band

LOT = 32
"""Tasks of one object."""

logger = logging.getLogger(__name__)


class Screening:
    def __init__(
        self,
        band: DifficultyBand,
        candidates: Sequence[Task],
        *,
        keep: Callable[[Sequence[Task]], None],
        store: ObjectStore,
        prefix: str,
        sampler: Sampler,
        scorer: Scorer,
    ) -> None:
        """`candidates`, `prefix`: the same for all attempts of the stage, also after a divergence: tasks are tried once. `keep` is told those in the band."""
        self._band, self._candidates, self._tell_kept = band, candidates, keep
        self._store, self._folder = store, f"{prefix}difficulty/"
        self._sampler, self._scorer = sampler, scorer

    async def settle(
        self, is_stopping: Callable[[], bool], tell: Callable[[int, int], None]
    ) -> dict[str, float] | None:
        """Metrics of what is kept. None: told to stop before all was tried; what was found stays. `tell`: (tasks
        tried, of how many). Raises AbruzziError `no_task_in_band`."""
        candidates = self._candidates
        found: list[tuple[Task, list[float]]] = []
        for first in range(0, len(candidates), LOT):
            if is_stopping():
                return None
            tell(first, len(candidates))
            key = f"{self._folder}lot-{first // LOT:06d}.json"
            if not self._store.exists(key):
                rows = await self._tried(candidates[first : first + LOT], first // LOT)
                self._store.put_if_absent(key, json.dumps(rows).encode())
            # What is there first holds: of two processes that tried the same lot, one.
            found += [_read(row) for row in json.loads(self._store.get(key))]
        return self._keep(found)

    async def _tried(self, tasks: Sequence[Task], lot: int) -> list[dict[str, Any]]:
        played = await self._sampler.sample(tasks, self._band.attempts, name=f"d{lot:06d}")
        rows = []
        for task, tries in zip(tasks, played, strict=True):
            outcomes = await asyncio.gather(*(self._scorer.score(one) for one in tries))
            rows.append({"task": task.model_dump(mode="json"), "rewards": [outcome.reward for outcome in outcomes]})
        return rows

    def _keep(self, found: Sequence[tuple[Task, list[float]]]) -> dict[str, float]:
        band = self._band
        rights = [(task, len(rewards), sum(r >= band.right for r in rewards)) for task, rewards in found]
        told = [(task, tries, right) for task, tries, right in rights if tries >= band.k]
        kept = [task for task, tries, right in told if in_band(band, attempts=tries, correct=right)]
        solved = sum(right for _, _, right in told) / max(1, sum(tries for _, tries, _ in told))
        words = f"{len(kept)} of {len(found)} tasks have a pass@{band.k} of {band.low:g} to {band.high:g}; {solved:.0%} of all tries were right"
        if not kept:
            raise AbruzziError(
                "no_task_in_band",
                f"{words}.",
                hint="Teach more in `sft` where few are right, take harder tasks where most are, or widen the band.",
            )
        logger.info("%s", words)
        self._tell_kept(kept)
        return {"rl/difficulty_kept": len(kept) / len(found), "rl/difficulty_solved": solved}


def _read(row: dict[str, Any]) -> tuple[Task, list[float]]:
    return Task.model_validate(row["task"]), [reward for reward in row["rewards"] if reward is not None]
