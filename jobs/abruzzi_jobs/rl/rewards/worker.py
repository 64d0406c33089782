"""A process that computes rewards: a line of JSON in, a line out. `python -m abruzzi_jobs.rl.rewards.worker MEMORY_BYTES SOCKET`.

What is said to the pool goes over a socket that nothing else knows: what a verifier prints goes to standard error, and what it starts inherits nothing.
A worker dies with its pool, in whatever it is stuck.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import signal
import socket
import sys
import traceback
from typing import Any

from abruzzi.contracts.rollout import Outcome, Trajectory
from abruzzi_jobs.rl.environments.environment import Reward
from abruzzi_jobs.rl.environments.registry import gym
from abruzzi_jobs.rl.rewards.process import OUT_OF_MEMORY

_PR_SET_PDEATHSIG = 1
_SAID_AT_MOST = 2000


def main() -> None:
    memory_bytes, number = map(int, sys.argv[1:])
    os.set_inheritable(number, False)
    os.dup2(2, 1)
    _bind_to_the_pool(memory_bytes)
    rewards: dict[str, Reward] = {}
    with socket.socket(fileno=number) as pool, pool.makefile("rb") as questions:
        for line in questions:
            answer = _answered(json.loads(line), rewards)
            pool.sendall(json.dumps(answer).encode() + b"\n")


def _bind_to_the_pool(memory_bytes: int) -> None:
    """RLIMIT_DATA counts what can be written, not address space that is only reserved."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _answered(request: dict[str, Any], rewards: dict[str, Reward]) -> dict[str, Any]:
    """{"outcome"} or {"loaded"}; {"error"} for anything that the reward raised."""
    reference = request["reward"]
    try:
        if reference not in rewards:
            rewards[reference] = gym(reference)
        if "trajectory" not in request:
            return {"loaded": reference}
        trajectory = Trajectory.model_validate(request["trajectory"])
        outcome = rewards[reference].score(trajectory, tuple(request["messages"]), request["state"])
        return {"outcome": _finite(outcome).model_dump(mode="json")}
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as error:  # whatever a verifier raises is this trajectory's REWARD_ERROR, told to the pool in full
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {error} ({os.path.basename(place.filename)}, line {place.lineno})"
        return {"error": said[:_SAID_AT_MOST]}


def _finite(outcome: Outcome) -> Outcome:
    figures = {"reward": outcome.reward, **outcome.components}
    for name, figure in figures.items():
        if figure is not None and not math.isfinite(figure):
            raise ValueError(f"{name} is {figure}")
    return outcome


if __name__ == "__main__":
    main()
