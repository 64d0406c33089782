"""A served environment whose process is killed (SIGKILL, by itself) at random points: before or after it has answered, with all its sessions in it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from ports import free_port

from abruzzi.contracts.rollout import Outcome, Task, Trajectory
from abruzzi_jobs.rl.environments import gym
from abruzzi_jobs.rl.environments.adapters import openenv_server
from abruzzi_jobs.rl.environments.gym import Gym

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["__main__", "abruzzi_jobs.rl.environments.adapters.openenv_server", "abruzzi_jobs.rl.environments.gyms.tools"]
)
MOST_ANSWERS = 40
"""That a process gives before it dies, at most."""
PATIENT_SECONDS = 240.0


class InOneProcess:
    """Rewards where they are asked for: which process computes them does not matter here."""

    def __init__(self, served: Gym) -> None:
        self._gym = served

    async def score(self, trajectory: Trajectory, messages: tuple[Any, ...], state: dict[str, Any]) -> Outcome:
        return self._gym.score(trajectory, messages, state)


def serve(name: str, options: dict[str, Any], port: int, pulses: int | None) -> None:
    """`pulses`: so many, two an answer, before it kills itself."""
    left, answer = pulses, openenv_server._Episode.answer

    def pulse() -> None:
        nonlocal left
        if left is not None:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    async def deadly(self: Any, text: str) -> str | None:
        pulse()
        found = await answer(self, text)
        pulse()
        return found

    openenv_server._Episode.answer = deadly

    async def run() -> None:
        served = gym(name, options)
        pool: Any = InOneProcess(served)
        async with openenv_server.OpenEnvServer(served, pool=pool).listening(port=port):
            await asyncio.Event().wait()

    asyncio.run(run())


@dataclass
class Killed:
    kills: int = 0
    episodes: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    """How often each episode ended with its reward."""
    rewards: set[float | None] = field(default_factory=set)
    recovery_seconds: list[float] = field(default_factory=list)
    """From a death until the next service answers a step."""

    @property
    def lost(self) -> int:
        return self.episodes - len(self.ended)

    @property
    def twice(self) -> int:
        return sum(count - 1 for count in self.ended.values())


async def kill_service_at_random_points(*, kills: int, seed: int, sessions: int = 6) -> Killed:
    """Sessions play solved conversations, one after another, until the service has died so often. A right policy's every reward is 1."""
    found, draw, port = Killed(), random.Random(seed), free_port()
    ours = gym("tools", {"tools": 3})
    served = gym("openenv", {"url": f"http://127.0.0.1:{port}", "patience_seconds": PATIENT_SECONDS})
    died_at: float | None = None
    is_over = False

    def answered() -> None:
        nonlocal died_at
        if died_at is not None:
            found.recovery_seconds.append(time.monotonic() - died_at)
            died_at = None

    async def play(number: int) -> None:
        task = served.task(seed, number)
        said = [m for m in ours.solution(ours.task(task.data["seed"], 0)) if m["role"] == "assistant"]
        session = served.session()
        await session.reset(task, task.seed)
        for message in said:
            await session.step(message)
            answered()
        outcome = served.score(_ended(task), (), await session.state())
        await session.close()
        name = f"episode-{number}"
        found.ended[name] = found.ended.get(name, 0) + 1
        found.rewards.add(outcome.reward)

    async def player(number: int) -> None:
        while not is_over:
            found.episodes += 1
            await play(number)
            number += sessions

    async def keep_alive() -> None:
        nonlocal died_at, is_over
        while True:
            pulses = draw.randrange(4, 2 * MOST_ANSWERS) if found.kills < kills else None
            is_over = pulses is None
            process = PROCESSES.Process(target=serve, args=("tools", {"tools": 3}, port, pulses), daemon=True)
            process.start()
            try:
                await asyncio.to_thread(process.join)
            finally:
                process.kill()
            found.kills += process.exitcode == -signal.SIGKILL
            died_at = time.monotonic() if died_at is None else died_at

    alive = asyncio.create_task(keep_alive())
    try:
        await _listening(port)
        await asyncio.gather(*(player(number) for number in range(sessions)))
    finally:
        alive.cancel()
    return found


async def _listening(port: int) -> None:
    end = time.monotonic() + PATIENT_SECONDS
    while time.monotonic() < end:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return
    raise TimeoutError(f"nobody listens at port {port}")


def _ended(task: Task) -> Trajectory:
    return openenv_server._ended(task, task.id, 1, cut=False)
