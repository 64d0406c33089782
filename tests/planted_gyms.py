"""Environments whose rewards misbehave, named by path as a user's own are: `planted_gyms:Planted`. The answer says how."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from abruzzi.contracts.rollout import Outcome, Segment, Status, Task, TokenSource, Trajectory
from abruzzi_jobs.rl.environments import Gym, Services
from abruzzi_jobs.rl.environments.answers import as_assistant, scored
from abruzzi_jobs.rl.environments.single_turn import QuestionGym


class Planted(QuestionGym):
    name = "planted"
    summary = "Misbehaves as it is told."
    families = ("any",)

    def draw(self, draw: random.Random, family: str) -> dict[str, Any]:
        return {"prompt": f"What is {draw.randrange(10**6)}?", "answer": "right"}

    def judge(self, task: Task, text: str) -> Outcome:
        what, _, more = text.partition(" ")
        if what == "loop":
            sum(itertools.repeat(0, 10**17))  # in C, without a look at signals
        elif what == "ignores":
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
                signal.signal(number, signal.SIG_IGN)
            while True:
                signal.pause()
        elif what == "child":
            child = subprocess.Popen([sys.executable, "-c", "import signal\nwhile True: signal.pause()"])
            Path(more).write_text(str(child.pid))
            child.wait()
        elif what == "raises":
            raise LookupError("no such thing")
        elif what == "nan":
            return scored(self.reference, float("nan"))
        elif what == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "dies_once" and not Path(more).exists():
            Path(more).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "eats":
            return scored(self.reference, float(len(bytearray(1 << 40))))
        elif what == "prints":
            print("{}\n" * 100)
            os.write(1, b'{"outcome": {}}\n')
        elif what == "pid":
            return scored(self.reference, 1.0, pid=float(os.getpid()))
        return scored(self.reference, float(text == task.data["answer"]))


class Unloadable(Planted):
    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        if "abruzzi_jobs.rl.rewards.worker" in sys.modules or sys.argv[0].endswith("worker.py"):
            raise RuntimeError("a package is broken")


def ended(task: Task, *, status: Status = Status.OK, group: str = "g1", member: int = 0) -> Trajectory:
    prompt = Segment(source=TokenSource.PROMPT, tokens=(1, 2, 3))
    return Trajectory(
        id=f"{group}/{member}", group=group, member=member, task=task, segments=(prompt,), status=status, turns=1
    )


def answered(text: str) -> tuple[dict[str, Any], ...]:
    return ({"role": "user", "content": "?"}, as_assistant(text))


async def played(gym: Gym, task: Task, said: Sequence[dict[str, Any]], services: Services = Services()) -> Outcome:
    """What the policy's messages are worth: a session from its beginning to its end, then the reward."""
    session = gym.session(services)
    try:
        begin = await session.reset(task, task.seed)
        messages = list(begin.messages)
        for message in said:
            result = await session.step(message)
            messages += [message, *result.observation.messages]
            if result.terminated or result.truncated:
                break
        return gym.score(ended(task), tuple(messages), await session.state())
    finally:
        await session.close()
