"""The environment that does nothing but answer, for measuring what surrounds it. One's own gym, named by path: `environments_echo:Echo`."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from typing import Any

from abruzzi.contracts.rollout import Outcome, Task, Trajectory
from abruzzi_jobs.rl.environments import Environment, Gym, Message, Observation, Services, StepResult
from abruzzi_jobs.rl.environments.adapters.openenv_server import OpenEnvServer
from abruzzi_jobs.rl.environments.answers import as_user, scored


class Echo(Gym):
    name = "echo"
    summary = "Says what it hears."
    families = ("echo",)

    def draw(self, draw: random.Random, family: str) -> dict[str, Any]:
        return {"seed": draw.getrandbits(31)}

    def session(self, services: Services = Services()) -> Environment:
        return EchoSession()

    def score(self, trajectory: Trajectory, messages: tuple[Message, ...], state: dict[str, Any]) -> Outcome:
        return scored(self.reference, 0.0)


class EchoSession:
    def __init__(self) -> None:
        self._steps = 0

    async def reset(self, task: Task, seed: int) -> Observation:
        self._steps = 0
        return Observation(messages=as_user("Say something."))

    async def step(self, action: Message) -> StepResult:
        self._steps += 1
        return StepResult(observation=Observation(messages=as_user(action["content"])))

    async def state(self) -> dict[str, Any]:
        return {"steps": self._steps}

    async def close(self) -> None:
        return None


async def serve(port: int) -> None:
    """Until standard input ends."""
    async with OpenEnvServer(Echo()).listening(port=port):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    asyncio.run(serve(parser.parse_args().port))
