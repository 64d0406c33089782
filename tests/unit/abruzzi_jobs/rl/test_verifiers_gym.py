"""Tasksets of verifiers: the same one through what stands for the package here, and (longer proof) through the package itself."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rollout import Outcome, Status, Task, Trajectory
from abruzzi_jobs.rl.environments import gym
from abruzzi_jobs.rl.environments.adapters import verifiers_gym

ROOT = Path(__file__).parents[4]
STUB = ROOT / "tests" / "verifiers_stub"
HERE: dict[str, Any] = {
    "taskset": "toy_sums",
    "tasks": 5,
    "python": sys.executable,
    "variables": {"PYTHONPATH": str(STUB)},
}


async def played(options: dict[str, Any], *, right: bool) -> Outcome:
    made = gym("verifiers", options)
    task = made.task(0, 0)
    session = made.session()
    try:
        async with asyncio.timeout(240):
            first = await session.reset(task, task.seed)
            asked = first.messages[0]["content"]
            number = int(asked.split()[2])
            assert asked == f"What is {number} + 1?"
            step = await session.step({"role": "assistant", "content": str(number + 1 if right else number)})
        assert step.terminated
        state = await session.state()
    finally:
        await session.close()
    return made.score(trajectory(task), (), state)


def trajectory(task: Task) -> Trajectory:
    return Trajectory(id="t/0", group="t", member=0, task=task, segments=(), status=Status.OK)


@pytest.mark.parametrize(("right", "reward"), [(True, 1.0), (False, 0.0)])
async def test_a_taskset_is_played_by_its_harness_and_scored_by_its_rewards(right: bool, reward: float) -> None:
    found = await played(HERE, right=right)
    assert (found.status, found.reward) == (Status.OK, reward)
    assert found.components == {"right": reward, "length": 1.0}


def test_what_was_cut_is_worth_nothing_and_what_could_not_be_scored_has_no_reward() -> None:
    made = gym("verifiers", HERE)
    task = made.task(0, 0)
    cut = made.score(trajectory(task), (), {"result": None})
    assert (cut.status, cut.reward) == (Status.OK, 0.0)
    failed = {"rewards": {"right": None}, "metrics": {}, "errors": ["TaskError: no"]}
    lost = gym("verifiers").score(trajectory(task), (), {"result": failed})
    assert (lost.status, lost.reward, lost.detail) == (Status.REWARD_ERROR, None, "TaskError: no")


async def test_a_task_that_there_is_not_is_the_environment_s_error_and_says_so() -> None:
    made = gym("verifiers", HERE)
    task = made.task(0, 0)
    beyond = task.model_copy(update={"data": {**task.data, "index": 99}})
    session = made.session()
    with pytest.raises(RuntimeError) as told:
        async with asyncio.timeout(240):
            await session.reset(beyond, 0)
    await session.close()
    assert str(told.value) == "toy_sums, task 99: The taskset toy_sums has no task 99: give fewer as `tasks`."


WORDY = """
import toy_sums, verifiers.v1 as vf

class Task(vf.Task[toy_sums.SumData]):
    @vf.reward
    async def right(self, trace):
        raise ValueError("x" * 100_000)

class Wordy(vf.Taskset[Task]):
    def load(self):
        for number in range(20):  # which of them are held out follows from the options, in which there is a path
            yield Task(toy_sums.SumData(prompt=f"What is {number} + 1?", answer=str(number + 1)), self.config.task)

__all__ = ["Wordy"]
"""


async def test_of_an_error_that_is_longer_than_what_is_kept_of_the_output_its_begin_is_told(tmp_path: Path) -> None:
    (tmp_path / "wordy.py").write_text(WORDY)
    found = await played(
        {**HERE, "taskset": "wordy", "tasks": 20, "variables": {"PYTHONPATH": f"{STUB}:{tmp_path}"}}, right=True
    )
    assert (found.status, found.reward, found.detail) == (Status.REWARD_ERROR, None, "ValueError: " + "x" * 2000)


async def test_a_last_line_that_cannot_be_read_is_an_error_that_names_the_taskset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    player = tmp_path / "player.py"
    player.write_text("print('{' + 70_000 * 'x' + '}')")
    monkeypatch.setattr(verifiers_gym, "_PLAYER", player)
    made = gym("verifiers", HERE)
    task = made.task(0, 0).model_copy(update={"data": {**made.task(0, 0).data, "index": 3}})
    session = made.session()
    with pytest.raises(RuntimeError) as told:
        async with asyncio.timeout(240):
            await session.reset(task, 0)
    await session.close()
    assert str(told.value) == (
        "toy_sums, task 3: its program ended well, but the last line that it wrote is not what became of the task: "
        + 200 * "x"
    )


def test_an_interpreter_without_the_package_is_refused_before_any_rollout() -> None:
    with pytest.raises(AbruzziError, match="has no package verifiers") as told:
        gym("verifiers", {"taskset": "toy_sums", "python": "/nowhere/python"})
    assert told.value.code == "missing_package"
    with pytest.raises(AbruzziError, match="no taskset"):
        gym("verifiers").task(0, 0)


@pytest.mark.prove
async def test_the_real_package_plays_the_same_taskset_to_the_same_rewards(tmp_path: Path) -> None:
    uv = ROOT / ".cache" / "uv" / "bin" / "uv"
    python = tmp_path / "v" / "bin" / "python"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, tmp_path / "v"], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", python, "verifiers==0.4.0"], check=True)
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "toy_sums.py").write_bytes((STUB / "toy_sums.py").read_bytes())
    variables = {"PYTHONPATH": str(tmp_path / "toy"), "PATH": f"{uv.parent}:{os.environ['PATH']}"}
    options = {**HERE, "python": str(python), "variables": variables}
    right, wrong = [await played(options, right=right) for right in (True, False)]
    assert (right.reward, wrong.reward) == (1.0, 0.0)
    assert right.components == {"right": 1.0, "length": 1.0}
