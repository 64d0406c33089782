"""Tasksets of `verifiers` (v1) as an environment. There a harness, a program, plays the task against an OpenAI server, and the task's own functions score what
it left; so each session is such a program in an interpreter that has the package (verifiers_player.py), and the policy is the server."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
from pathlib import Path
from typing import Any

from pydantic import Field, StrictInt, StrictStr

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rollout import Outcome, Status, Task, Trajectory
from abruzzi.contracts.training import Strict
from abruzzi_jobs.rl.environments.adapters.agent_process import run_agent
from abruzzi_jobs.rl.environments.adapters.program import Access, ProgramGym
from abruzzi_jobs.rl.environments.answers import scored
from abruzzi_jobs.rl.environments.environment import Message

_PLAYER = Path(__file__).with_name("verifiers_player.py")
_OTHER = re.compile(r"[^a-z0-9_]")


class VerifiersOptions(Strict):
    python: StrictStr = "python3"
    """The interpreter of an environment with `verifiers` and the taskset, by its absolute path (a stage runs in a folder of its own):
    `uv venv v; uv pip install --python v/bin/python verifiers==0.4.0`."""
    taskset: StrictStr = ""
    """Its id, as verifiers takes it: a module that exports a Taskset."""
    tasks: StrictInt = Field(default=1, ge=1)
    """How many of its tasks, from the first on, are played."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Of the taskset, beside its id."""
    harness: dict[str, Any] = Field(default={"id": "null"})
    """The program that plays; `null` is a plain loop of messages and tools."""
    runtime: dict[str, Any] = Field(default={"type": "subprocess"})
    """Where the program runs. A subprocess is on this machine, without isolation."""
    variables: dict[str, str] = Field(default_factory=dict)
    """Of its processes' environment, such as a PATH with `uv`, which harnesses install their programs with."""


class Verifiers(ProgramGym):
    name = "verifiers"
    summary = "Tasksets of the package verifiers (v1), played by its harnesses and scored by their own rewards, in their own interpreter."
    families = ("task",)
    replays = False
    Options = VerifiersOptions

    def refuse_unless_ready(self) -> None:
        if not self.options.taskset:
            return  # to score needs neither
        asked = [self.options.python, "-c", "import importlib.metadata as m; print(m.version('verifiers'))"]
        try:
            variables = {**os.environ, **self.options.variables}
            subprocess.run(asked, capture_output=True, check=True, timeout=60, env=variables)
        except (OSError, subprocess.SubprocessError) as error:
            raise AbruzziError(
                "missing_package",
                f"{self.options.python} has no package verifiers ({error}).",
                hint="Make an environment for it (`uv venv v; uv pip install --python v/bin/python verifiers==0.4.0`) and give its interpreter's absolute path as options.python.",
            ) from None

    def draw(self, draw: random.Random, family: str) -> dict[str, Any]:
        if not self.options.taskset:
            raise AbruzziError(
                "bad_options",
                "environment verifiers: no taskset.",
                hint='Give options = { taskset = "…", python = "…" }.',
            )
        table = self.options.model_dump(exclude={"tasks"})
        return {**table, "index": draw.randrange(self.options.tasks)}

    async def play(self, task: Task, access: Access) -> Any:
        ran = await run_agent(
            [task.data["python"], str(_PLAYER)],
            access,
            stdin=json.dumps(task.data),
            environment=task.data["variables"],
        )
        if ran.code != 0:
            raise RuntimeError(f"{task.data['taskset']}, task {task.data['index']}: {ran.errors.strip()[-2000:]}")
        last = ran.output.strip().rpartition("\n")[2]
        try:
            return json.loads(last)
        except ValueError:
            raise RuntimeError(
                f"{task.data['taskset']}, task {task.data['index']}: its program ended well, but the last line that it wrote is not what became of the task: "
                f"{last[:200] or 'nothing'}"
            ) from None

    def score(self, trajectory: Trajectory, messages: tuple[Message, ...], state: dict[str, Any]) -> Outcome:
        """The sum of its rewards, as verifiers has it. Nothing for a program that was cut before it had ended; none at all where a reward could not be computed."""
        result = state["result"]
        if result is None:
            return scored(self.reference, 0.0, detail="cut before its program had ended")
        rewards = result["rewards"]
        if not rewards or None in rewards.values():
            said = "; ".join(result["errors"])
            return Outcome(status=Status.REWARD_ERROR, version=self.reference, detail=said or "no reward was computed")
        parts = {_OTHER.sub("_", name.lower()): float(value) for name, value in (result["metrics"] | rewards).items()}
        return scored(self.reference, float(sum(rewards.values())), detail="; ".join(result["errors"]), **parts)
