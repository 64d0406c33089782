"""Iterations of rollouts with players, an engine and a store: whole groups come out, partials go on, and whatever is killed, nothing is lost or done twice."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rollout_lab import Adding, ScriptedEngine, ScriptedFront, adding_policy, adding_task, uniform

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rollout import Status, Task
from abruzzi.store.objects import DirectoryStore
from abruzzi_jobs.rl.engine.front import EngineFailed
from abruzzi_jobs.rl.rollout.collect import Collected, Interrupted, Rollouts
from abruzzi_jobs.rl.rollout.concurrency import ConcurrencyPolicy
from abruzzi_jobs.rl.rollout.dialogue import Dialogue
from abruzzi_jobs.rl.rollout.played import Played
from abruzzi_jobs.rl.rollout.player import Limits, Terms
from abruzzi_jobs.rl.rollout.scheduler import SchedulerPolicy
from abruzzi_jobs.rl.rollout.store import RolloutStore
from abruzzi_jobs.sft.template import ChatTemplate

PREFIX = "projects/p/runs/r/rl/"
LIMITS = Limits(budget_tokens=4000, positions=100_000, step_s=240.0, reset_s=240.0)


class Ground:
    """A stage's rollouts over a store in a folder; `process()` is a new process of it."""

    def __init__(self, template: ChatTemplate, folder: Path, **policy: Any) -> None:
        self.template, self.folder = template, folder
        self.policy = SchedulerPolicy(
            **({"groups": 2, "members": 2, "ahead": 0.5, "deadline_s": 1e6, "pause_grace_s": 1e6} | policy)
        )
        self.ends: list[Played] = []
        self.sessions: list[Adding] = []
        self.make: Callable[[], Adding] = Adding
        self.cap: int | None = None
        self.tasks = 10_000

    def process(self) -> Rollouts:
        middle = self.template.tokenizer.token_to_id(self.template.markers.middle)
        self.engine = ScriptedEngine(adding_policy(self.template), opening_ends_with=middle)
        self.front = ScriptedFront(self.engine)
        self.objects = Mortal(self.folder)
        return Rollouts(
            self.policy,
            engine=self.front,
            dialogue=Dialogue(self.template),
            make=self._session,
            task_of=self.task,
            limits=lambda family: LIMITS,
            terms=lambda family, version: Terms(temperature=0.7, cap_tokens=self.cap),
            seed=5,
            store=RolloutStore(self.objects, PREFIX),
            on_end=self.ends.append,
        )

    def store(self) -> RolloutStore:
        return RolloutStore(DirectoryStore(self.folder), PREFIX)

    def task(self, number: int) -> Task | None:
        """Some take ten times as long as most."""
        length = 40 if uniform(number) < 0.25 else 4
        return adding_task(number, target=length) if number < self.tasks else None

    def _session(self, task: Task) -> Adding:
        self.sessions.append(self.make())
        return self.sessions[-1]


@pytest.fixture
def ground(template: ChatTemplate, tmp_path: Path) -> Ground:
    return Ground(template, tmp_path)


def told(collected: Collected) -> list[list[tuple[str, tuple[int, ...], Status]]]:
    """What training sees of it."""
    return [[(p.trajectory.id, p.trajectory.tokens, p.trajectory.status) for p in g.members] for g in collected.groups]


async def collected(rollouts: Rollouts, version: int) -> Collected:
    async with asyncio.timeout(240):
        return await rollouts.collect(version)


async def test_each_iteration_hands_out_whole_groups_and_its_tail_goes_on_in_the_next(ground: Ground) -> None:
    rollouts = ground.process()
    found = []
    for version in range(6):
        ground.engine.version = version
        found.append(await collected(rollouts, version))
        assert [len(group.members) for group in found[-1].groups] == [2, 2]
        assert sum(found[-1].seconds.values()) == found[-1].metrics["rollout/seconds"] > 0
        for group in found[-1].groups:
            assert group.group().task == ground.task(int(group.id[1:]))
    groups = [group.id for one in found for group in one.groups]
    assert len(set(groups)) == 12
    spans = [p.trajectory.versions for one in found for group in one.groups for p in group.members]
    assert any(len(versions) > 1 for versions in spans), "long ones are of several versions"
    assert sum(one.metrics["rollout/resumed"] for one in found) > 0
    await asyncio.gather(*rollouts._closing)
    open_sessions = [session for session in ground.sessions if "close" not in session.log]
    assert len(open_sessions) == found[-1].metrics["rollout/held_sessions"] > 0
    await rollouts.close()
    assert all(session.log.count("close") == 1 for session in ground.sessions)
    assert max(Counter(played.trajectory.id for played in ground.ends).values()) == 1


async def test_pauses_and_lost_sessions_change_no_token(ground: Ground, template: ChatTemplate, tmp_path: Path) -> None:
    """The same weights: partial rollout with short leases and small rounds comes to what a barrier comes to."""
    barrier = Ground(template, tmp_path / "barrier", groups=12, ahead=0.0)
    whole = {p[0]: p for group in told(await collected(barrier.process(), 0)) for p in group}
    ground.cap = 60
    ground.policy = SchedulerPolicy(groups=2, members=2, lease_s=0.0, max_span=100, deadline_s=1e6, pause_grace_s=1e6)
    rollouts, seen = ground.process(), 0
    for version in range(5):
        for group in told(await collected(rollouts, version)):
            for member in group:
                if member[0] in whole:
                    assert member == whole[member[0]]
                    seen += 1
    await rollouts.close()
    assert seen >= 12
    assert ground.engine.requests
    assert len(ground.sessions) > 30, "sessions were lost and played again"


class Mortal(DirectoryStore):
    """Of one process: after its death nothing is written, also by threads that it left."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._lock, self._is_dead = threading.Lock(), False

    def kill(self) -> None:
        with self._lock:
            self._is_dead = True

    def put(self, key: str, content: Any) -> None:
        with self._lock:
            self._check()
            super().put(key, content)

    def put_if_absent(self, key: str, content: Any) -> bool:
        with self._lock:
            self._check()
            return super().put_if_absent(key, content)

    def delete(self, key: str) -> None:
        with self._lock:
            self._check()
            super().delete(key)

    def _check(self) -> None:
        if self._is_dead:
            raise ConnectionError("this process is dead")


async def killed_anywhere(ground: Ground, expected: dict[str, Any], *, seed: int, iterations: int) -> int:
    """Kills that it went through."""
    rng = random.Random(seed)
    process, version, kills, trained = ground.process(), 0, 0, []
    while version < iterations:
        phase = asyncio.create_task(process.collect(version))
        for _ in range(rng.randint(1, 400)):
            await asyncio.sleep(0)
        if rng.random() < 0.6 and kills < 4 * iterations:
            ground.objects.kill()
            phase.cancel()
            await asyncio.gather(phase, return_exceptions=True)
            process, kills = ground.process(), kills + 1
            continue
        async with asyncio.timeout(240):
            found = await phase
        if rng.random() < 0.3:
            ground.objects.kill()
            process, kills = ground.process(), kills + 1
            assert told(await collected(process, version)) == told(found), "handed out again, the same"
        trained += told(found)
        version += 1
    await process.close()
    members = [member for group in trained for member in group]
    assert len({name for name, *_ in members}) == len(members) == 4 * iterations, "none is trained on twice"
    assert all(member == expected.get(member[0], member) for member in members), "each is what it would have been"
    stored = [played.trajectory.id for _, played in ground.store().played()]
    assert sorted(stored) == sorted(name for name, *_ in members)
    return kills


async def undisturbed(ground: Ground, iterations: int) -> dict[str, Any]:
    rollouts = ground.process()
    found = {
        p[0]: p for version in range(iterations) for group in told(await collected(rollouts, version)) for p in group
    }
    await rollouts.close()
    return found


async def test_a_process_killed_anywhere_loses_no_trajectory_and_trains_none_twice(
    template: ChatTemplate, tmp_path: Path
) -> None:
    expected = await undisturbed(Ground(template, tmp_path / "undisturbed"), 6)
    kills = 0
    for seed in (100, 101):
        kills += await killed_anywhere(Ground(template, tmp_path / str(seed)), expected, seed=seed, iterations=6)
    assert kills > 5


@pytest.mark.prove
async def test_two_hundred_kills_lose_no_trajectory_and_train_none_twice(
    template: ChatTemplate, tmp_path: Path
) -> None:
    expected, kills, seed = await undisturbed(Ground(template, tmp_path / "undisturbed"), 10), 0, 100
    while kills < 200:
        kills += await killed_anywhere(Ground(template, tmp_path / str(seed)), expected, seed=seed, iterations=6)
        seed += 1
    assert kills >= 200


async def test_an_interrupted_iteration_keeps_what_stands_for_the_next_process(ground: Ground) -> None:
    rollouts = ground.process()
    phase = asyncio.create_task(rollouts.collect(0))
    async with asyncio.timeout(240):
        while len(ground.ends) < 2:
            await asyncio.sleep(0)
        rollouts.interrupt()
        with pytest.raises(Interrupted):
            await phase
    kept = ground.store().before(0)
    assert kept is not None
    assert kept.handed is None
    standing = [p.trajectory for g in kept.held for p in g.members.values() if p.trajectory.status is Status.PARTIAL]
    assert sum(trajectory.policy_tokens for trajectory in standing) > 0
    with pytest.raises(Interrupted):
        await collected(rollouts, 0)
    await rollouts.close()
    again = ground.process()
    found = await collected(again, 0)
    assert len(found.groups) == 2
    first = {r.id: len(r.tokens) for r in reversed(ground.engine.requests)}
    assert all(first[t.id] >= len(t.tokens) for t in standing if t.id in first), "from where they stood"
    await again.close()


async def test_what_fails_is_dropped_by_name_and_replaced(ground: Ground) -> None:
    broken = iter([True] * 2 + [False] * 1000)
    ground.make = lambda: Adding(raises={"step": RuntimeError("broken")} if next(broken) else {})
    rollouts = ground.process()
    found = await collected(rollouts, 0)
    assert len(found.groups) == 2
    assert {p.trajectory.status for p in found.dropped} <= {Status.ENVIRONMENT_ERROR, Status.CANCELLED}
    assert found.metrics["rollout/ended/environment_error"] >= 1
    assert len(found.dropped) == found.metrics["rollout/dropped"] == 2
    assert all(p.trajectory.outcome is not None and p.trajectory.outcome.reward is None for p in found.dropped)
    await rollouts.close()


async def test_an_engine_that_fails_for_a_while_costs_no_trajectory(ground: Ground) -> None:
    rollouts = ground.process()
    ground.front.failures = 3
    found = await collected(rollouts, 0)
    assert found.metrics["rollout/retried"] == 3
    assert not found.dropped
    await rollouts.close()


async def test_a_dead_engine_and_a_broken_environment_end_the_iteration_with_the_reason(ground: Ground) -> None:
    rollouts = ground.process()
    ground.front.failures, ground.front.failure = 10**6, EngineFailed(MemoryError("no memory"))
    with pytest.raises(EngineFailed, match="no memory"):
        await collected(rollouts, 0)
    await rollouts.close()
    ground.make = lambda: Adding(raises={"reset": RuntimeError("no such image")})
    rollouts = ground.process()
    with pytest.raises(AbruzziError, match=r"9 groups of iteration 0 were lost .* no such image"):
        await collected(rollouts, 0)
    await rollouts.close()
    ground.make = Adding
    assert len((await collected(ground.process(), 0)).groups) == 2, "and it may be tried again"


async def test_a_full_cache_preempts_and_what_was_preempted_goes_on(template: ChatTemplate, tmp_path: Path) -> None:
    concurrency = ConcurrencyPolicy(start=6, most=6, interval_s=0.0)
    ground = Ground(template, tmp_path, concurrency=concurrency)
    rollouts = ground.process()
    ground.engine._capacity = 500
    rollouts._looked_every_s = 0.0
    found = await collected(rollouts, 0)
    assert found.metrics["rollout/preempted"] > 0
    assert found.metrics["rollout/concurrency"] < 6
    assert len(found.groups) == 2
    await rollouts.close()


async def test_a_stage_that_runs_out_of_tasks_hands_out_what_there_is(ground: Ground) -> None:
    ground.tasks = 3
    rollouts = ground.process()
    numbers = [len((await collected(rollouts, version)).groups) for version in range(3)]
    assert numbers == [2, 1, 0]
    await rollouts.close()


async def test_a_player_s_bug_is_raised_and_does_not_wait_for_a_deadline(ground: Ground) -> None:
    rollouts = ground.process()
    rollouts._dialogue.turn = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        await collected(rollouts, 0)
    await rollouts.close()


async def test_tasks_of_an_evaluation_are_played_once_each_in_their_order(ground: Ground) -> None:
    rollouts = ground.process()
    tasks = [adding_task(number, target=5) for number in range(7)]
    async with asyncio.timeout(240):
        played = await rollouts.play_all(tasks, Terms(temperature=0.0), name="held-out-3", at_once=3)
    assert [one.trajectory.task.id for one in played] == [task.id for task in tasks]
    assert all(one.trajectory.status is Status.OK for one in played)
    assert all(session.log[-1] == "close" for session in ground.sessions)
    assert not ground.store().iterations()


async def test_of_two_processes_one_finishes_an_iteration(ground: Ground) -> None:
    first, second = ground.process(), ground.process()
    await collected(first, 0)
    kept = ground.store().iteration(0)
    assert kept is not None
    with pytest.raises(AbruzziError, match="Another process has finished"):
        ground.store().finished(0, kept)
    await first.close()
    await second.close()


async def test_a_damaged_end_is_played_again_and_a_damaged_iteration_says_what_to_do(ground: Ground) -> None:
    store, objects = ground.store(), DirectoryStore(ground.folder)
    rollouts = ground.process()
    await collected(rollouts, 0)
    store.ended(1, ground.ends[0])
    (key,) = objects.list("projects/p/runs/r/rl/rollouts/00000001/")
    objects.put(key, objects.get(key)[:-9])
    assert store.ended_in(1) == {}
    assert not store.is_begun(1)
    (key,) = objects.list("projects/p/runs/r/rl/rollouts/00000000/")
    objects.put(key, b"x")
    with pytest.raises(AbruzziError, match="damaged") as caught:
        store.iteration(0)
    assert "Delete it" in str(caught.value.hint)
    store.forget()
    assert store.iterations() == []
    await rollouts.close()


async def test_an_iteration_that_begins_while_new_weights_come_goes_on_when_they_are_there(ground: Ground) -> None:
    """With a staleness of two and more."""
    ground.policy = replace(ground.policy, staleness=2)
    rollouts, said = ground.process(), []
    pause, resume = ground.front.pause, ground.front.resume

    async def paused(mode: Any) -> None:
        said.append(mode)
        await pause(mode)

    async def resumed() -> None:
        said.append("resume")
        await resume()

    async def update() -> None:
        while not rollouts._is_collecting:
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        ground.engine.version = 1
        said.append("update")

    ground.front.pause, ground.front.resume = paused, resumed
    renewing = asyncio.create_task(rollouts.renew(1, update))
    while not said:
        await asyncio.sleep(0)
    found = await rollouts.collect(2, served=0)
    await renewing
    await rollouts.close()
    assert said[:3] == ["keep", "update", "resume"]
    assert {v for group in found.groups for p in group.members for v in p.trajectory.versions} == {1}
