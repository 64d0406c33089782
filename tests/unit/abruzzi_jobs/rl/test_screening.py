"""Tasks of moderate difficulty: tried once, whoever dies meanwhile; only those in the band are played."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.objective import DifficultyBand
from abruzzi.contracts.rl import PlayedGym
from abruzzi.contracts.rollout import Outcome, Status, Task, Trajectory
from abruzzi.store import DirectoryStore
from abruzzi_jobs.rl.controller.screening import LOT, Screening
from abruzzi_jobs.rl.controller.tasks import Curriculum
from abruzzi_jobs.rl.rollout.played import Played

TASKS = [Task(id=f"t{number}", family="addition", environment="arithmetic@1") for number in range(LOT + 6)]
BAND = DifficultyBand(attempts=4, k=2, low=0.1, high=0.9)
ENDLESS = 1 << 30


class Tries:
    """Task number n is right in the first n % 5 of its tries; number 7 fails in three of four, and nobody can say what those were worth."""

    def __init__(self, lots: int = ENDLESS) -> None:
        self.lots, self.tried = lots, list[str]()

    async def sample(self, tasks: Sequence[Task], attempts: int, *, name: str) -> Sequence[Sequence[Played]]:
        self.lots -= 1
        if self.lots < 0:
            raise ConnectionError("killed")
        self.tried += [task.id for task in tasks]
        return [[self._one(task, number) for number in range(attempts)] for task in tasks]

    def _one(self, task: Task, number: int) -> Played:
        trajectory = Trajectory(
            id=f"{task.id}/{number}", group=task.id, member=number, task=task, segments=(), status=Status.OK
        )
        return Played(trajectory=trajectory)

    async def score(self, played: Played) -> Outcome:
        number, member = int(played.trajectory.group[1:]), played.trajectory.member
        if number == 7 and member:
            return Outcome(status=Status.REWARD_TIMEOUT)
        return Outcome(status=Status.OK, reward=float(member < number % 5))


def screening(root: Path, tries: Tries, kept: list[Task], *, band: DifficultyBand = BAND) -> Screening:
    return Screening(
        band, TASKS, keep=kept.extend, store=DirectoryStore(root), prefix="p/rl/", sampler=tries, scorer=tries
    )


def test_what_is_never_or_always_right_is_not_played_nor_what_nobody_could_score(tmp_path: Path) -> None:
    kept, told = list[Task](), list[tuple[int, int]]()
    found = asyncio.run(screening(tmp_path, Tries(), kept).settle(lambda: False, lambda *at: told.append(at)))
    # pass@2 of 0, 1, 2, 3, 4 right in 4: 0, 0.5, 0.83, 1, 1.
    assert [task.id for task in kept] == [task.id for n, task in enumerate(TASKS) if n % 5 in (1, 2) and n != 7]
    assert found is not None
    assert found["rl/difficulty_kept"] == len(kept) / len(TASKS)
    assert told == [(0, len(TASKS)), (LOT, len(TASKS))]


def test_an_attempt_after_a_kill_tries_only_what_was_not_tried_and_keeps_the_same(tmp_path: Path) -> None:
    whole, first, second = (list[Task]() for _ in range(3))
    asyncio.run(screening(tmp_path / "whole", Tries(), whole).settle(lambda: False, lambda *_: None))
    with pytest.raises(ConnectionError):
        asyncio.run(screening(tmp_path / "killed", Tries(lots=1), first).settle(lambda: False, lambda *_: None))
    assert not first
    after = Tries()
    asyncio.run(screening(tmp_path / "killed", after, second).settle(lambda: False, lambda *_: None))
    assert after.tried == [task.id for task in TASKS[LOT:]]
    assert second == whole


def test_told_to_stop_it_says_so_and_keeps_what_was_found(tmp_path: Path) -> None:
    kept, answers = list[Task](), iter([False, True])
    assert asyncio.run(screening(tmp_path, Tries(), kept).settle(lambda: next(answers), lambda *_: None)) is None
    assert not kept
    after = Tries()
    assert asyncio.run(screening(tmp_path, after, kept).settle(lambda: False, lambda *_: None)) is not None
    assert len(after.tried) == len(TASKS) - LOT


def test_no_task_in_the_band_is_an_error_that_says_what_was_found(tmp_path: Path) -> None:
    narrow = BAND.model_copy(update={"low": 0.6, "high": 0.7})
    with pytest.raises(AbruzziError) as raised:
        asyncio.run(screening(tmp_path, Tries(), [], band=narrow).settle(lambda: False, lambda *_: None))
    said = r"0 of 38 tasks have a pass@2 of 0.6 to 0.7; \d+% of all tries were right"
    assert re.search(said, raised.value.message), raised.value.message


def test_groups_play_kept_tasks_alone_by_the_weights_of_environments_that_have_any() -> None:
    gyms = [PlayedGym(name="arithmetic", weight=1.0), PlayedGym(name="logic", weight=3.0)]
    curriculum = Curriculum(gyms, seed=3)
    candidates = curriculum.candidates(40)
    assert len({task.id for task in candidates}) == 40
    sums = [task for task in candidates if task.environment == "arithmetic@1"]
    curriculum.keep(sums[:2])
    played = [curriculum.task(number) for number in range(30)]
    assert {task.id for task in played} == {task.id for task in sums[:2]}
    assert played == [curriculum.task(number) for number in range(30)]
    curriculum.keep(candidates)
    drawn = [curriculum.task(number).environment for number in range(200)]
    assert 0.6 < drawn.count("logic@1") / 200 < 0.9
    assert not {t.id for t in candidates} & {t.id for t in curriculum.held_out(20)}
