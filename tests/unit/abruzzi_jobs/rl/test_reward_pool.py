"""Invariant 10 of reference/rl.md 8: a reward that hangs is killed on time. And: nothing that a reward does becomes a zero."""

from __future__ import annotations

import asyncio
import time

import pytest
from planted_gyms import answered, ended
from reward_lab import PATIENT_SECONDS, TASK, kill_workers_at_random, score

from abruzzi.contracts.rollout import Group, Status
from abruzzi_jobs.rl.rewards import RewardPool


def _is_running(pid: int) -> bool:
    """Zombies are not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def _gone(pid: int) -> bool:
    """Within our patience: a killed process may take a moment to leave."""
    end = time.monotonic() + PATIENT_SECONDS
    while _is_running(pid) and time.monotonic() < end:
        await asyncio.sleep(0)
    return not _is_running(pid)


@pytest.mark.parametrize("hang", ["loop", "ignores"])
async def test_a_hung_reward_is_killed_at_its_deadline_and_has_no_reward(hang: str) -> None:
    async with RewardPool(workers=1) as pool:
        pid = int((await score(pool, "pid")).components["pid"])
        began = time.monotonic()
        outcome = await score(pool, hang, seconds=0.5)
        took = time.monotonic() - began
        assert (outcome.status, outcome.reward) == (Status.REWARD_TIMEOUT, None)
        assert "0.5 s" in outcome.detail
        assert took >= 0.5
        assert not _is_running(pid)
        assert (await score(pool, "right")).reward == 1.0
        assert (pool.stats.timeouts, pool.stats.scored) == (1, 2)


async def test_what_a_hung_reward_started_is_killed_with_it(tmp_path) -> None:
    written = tmp_path / "pid"
    async with RewardPool(workers=1) as pool:
        await score(pool, "pid")
        asked = asyncio.create_task(score(pool, f"child {written}", seconds=PATIENT_SECONDS))
        end = time.monotonic() + PATIENT_SECONDS
        while not (written.exists() and written.read_text()) and time.monotonic() < end:
            await asyncio.sleep(0.01)
        child = int(written.read_text())
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert await _gone(child)


async def test_a_hung_reward_holds_up_no_other() -> None:
    async with RewardPool(workers=2) as pool:
        await asyncio.gather(*(score(pool, "right") for _ in range(2)))
        hung = asyncio.create_task(score(pool, "loop", seconds=PATIENT_SECONDS))
        others = await asyncio.gather(*(score(pool, "right") for _ in range(20)))
        assert [outcome.reward for outcome in others] == [1.0] * 20
        assert not hung.done()
        hung.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hung


async def test_rewards_that_fail_have_a_status_and_a_detail_but_no_reward(tmp_path) -> None:
    async with RewardPool(workers=1, memory_bytes=1 << 30) as pool:
        for text, detail in (
            ("raises", "LookupError: no such thing (planted_gyms.py, line"),
            ("nan", "reward is nan"),
            ("dies", "killed by signal 9, 2 times"),
            ("eats", "ran out of its 1024 MiB of memory, 2 times"),
        ):
            outcome = await score(pool, text)
            assert (outcome.status, outcome.reward) == (Status.REWARD_ERROR, None), outcome
            assert detail in outcome.detail
        assert (await score(pool, f"dies_once {tmp_path}/once")).status is Status.OK
        assert (pool.stats.errors, pool.stats.deaths) == (4, 5)


async def test_what_a_reward_prints_is_not_taken_for_its_answer() -> None:
    async with RewardPool(workers=1) as pool:
        assert (await score(pool, "prints")).reward == 0.0
        assert (await score(pool, "right")).reward == 1.0


async def test_a_reward_that_cannot_be_loaded_says_why() -> None:
    async with RewardPool(workers=1) as pool:
        outcome = await pool.score(ended(TASK), answered("right"), {}, reward="planted_gyms:Unloadable@1")
        assert (outcome.status, outcome.reward) == (Status.REWARD_ERROR, None)
        assert "a package is broken" in outcome.detail


async def test_workers_are_reused_and_end_with_their_pool() -> None:
    async with RewardPool(workers=2) as pool:
        found = await asyncio.gather(*(score(pool, "pid") for _ in range(40)))
        pids = {int(outcome.components["pid"]) for outcome in found}
        assert len(pids) <= 2
    assert not any(_is_running(pid) for pid in pids)


async def test_a_trajectory_cut_at_its_budget_or_turns_keeps_its_status() -> None:
    async with RewardPool(workers=1) as pool:
        for status in (Status.BUDGET, Status.TURNS):
            outcome = await score(pool, "right", status=status)
            assert (outcome.status, outcome.reward) == (status, 1.0)
        with pytest.raises(ValueError, match="engine_error"):
            await score(pool, "right", status=Status.ENGINE_ERROR)


async def test_what_has_no_reward_never_enters_the_mean_of_its_group() -> None:
    """Invariant 8: an error is not a zero, and is not compared with."""
    said = ["right", "wrong", "raises", "nan", "dies", "right"]
    async with RewardPool(workers=2) as pool:
        members = [ended(TASK, member=member) for member in range(len(said))]
        outcomes = await asyncio.gather(
            *(
                pool.score(trajectory, answered(text), {}, deadline_seconds=PATIENT_SECONDS)
                for trajectory, text in zip(members, said, strict=True)
            )
        )
        hung = await score(pool, "loop", seconds=0.3)
    scored = [t.model_copy(update={"outcome": o}) for t, o in zip(members, outcomes, strict=True)]
    late = ended(TASK, member=len(said)).model_copy(update={"outcome": hung})
    group = Group(id="g1", task=TASK, trajectories=(*scored, late))
    assert [t.member for t in group.counted] == [0, 1, 5]
    assert group.mean_reward == pytest.approx(2 / 3)


async def test_a_pool_that_is_cancelled_while_a_worker_starts_leaves_nothing() -> None:
    for steps in range(8):
        async with RewardPool(workers=1) as pool:
            asked = asyncio.create_task(score(pool, "right"))
            for _ in range(steps):
                await asyncio.sleep(0)
            pids = [worker.pid for worker in pool._living]
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(asked, PATIENT_SECONDS)
            assert not pool._living
        assert not any(_is_running(pid) for pid in pids)


async def test_workers_killed_at_random_lose_no_reward_and_make_none_up() -> None:
    found = await kill_workers_at_random(kills=3, seed=0)
    assert (len(found.outcomes), found.lost) == (60, 0), found
    assert found.scored + found.errors == 60
    assert found.scored >= 54


@pytest.mark.prove
async def test_workers_killed_two_hundred_times_lose_no_reward() -> None:
    found = await kill_workers_at_random(kills=200, seed=1)
    assert found.scored + found.errors == len(found.outcomes) == 4000
    assert found.lost == 0
    assert found.deaths >= 100
