"""Issues to mend. The policy has a shell and an editor in the repository; it ends with a message without calls. Hidden tests are expressions whose right
values stay outside the sandbox: those that failed have to pass, the others have to go on passing."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import Mapping
from typing import Any

from pydantic import Field, StrictInt

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rollout import Outcome, Task, Trajectory
from abruzzi.contracts.training import Strict
from abruzzi_jobs.rl.environments.answers import as_assistant, as_user, scored
from abruzzi_jobs.rl.environments.environment import Environment, Message, Observation, Services, StepResult
from abruzzi_jobs.rl.environments.evaluating import evaluate, refuse_without_sandbox
from abruzzi_jobs.rl.environments.gym import Gym
from abruzzi_jobs.rl.environments.gyms.software.repositories import PACKAGES, Bug, bugs, named, repository
from abruzzi_jobs.rl.environments.gyms.software.workspace import Workspace
from abruzzi_jobs.sft.conversation import arguments_object, call_id, compact

_SYSTEM = (
    "You mend Python projects. The repository is your working folder. Look around, find the cause of the issue, edit the code, run the tests, "
    "and when it is done say in one sentence what was wrong."
)
_HELD_OUT_ONE_IN = 4
_TEXT = {"type": "string"}
TOOLS: tuple[dict[str, Any], ...] = (
    {
        "name": "shell",
        "description": "Runs a command with sh in the repository and returns what it prints.",
        "parameters": {"type": "object", "properties": {"command": _TEXT}, "required": ["command"]},
    },
    {
        "name": "edit",
        "description": "Replaces `old`, which has to stand once in the file, by `new`. With an empty `old` the file is written anew.",
        "parameters": {"type": "object", "properties": {"path": _TEXT, "old": _TEXT, "new": _TEXT}, "required": ["path", "old", "new"]},
    },
)  # fmt: skip


class SoftwareOptions(Strict):
    turns: StrictInt = Field(default=20, ge=1, le=100)


class Software(Gym):
    name = "software"
    summary = "A git repository with a bug and an issue about it; shell and editor in a sandbox, hidden tests that failed and have to pass."
    families = ("bugs",)
    replays = False
    Options = SoftwareOptions

    def refuse_unless_ready(self) -> None:
        refuse_without_sandbox(self.name)
        if shutil.which("git", path="/usr/local/bin:/usr/bin:/bin") is None:
            raise AbruzziError(
                "missing_program",
                "The environment software needs git below /usr, where sandboxes see it.",
                hint="apt-get install git",
            )

    def draw(self, draw: random.Random, family: str) -> dict[str, Any]:
        number = draw.randrange(len(bugs()))
        package = draw.choice(PACKAGES)
        bug = bugs()[number]
        return {
            "prompt": named(bug.issue, bug, package),
            "bug": bug.key,
            "package": package,
            "files": repository(bug, package),
            "turns": self.options.turns,
        }

    def is_held_out(self, data: Mapping[str, Any]) -> bool:
        """One bug in four, whatever the package is called; of each project some."""
        return (
            next(n for n, bug in enumerate(bugs()) if bug.key == data["bug"]) % _HELD_OUT_ONE_IN == _HELD_OUT_ONE_IN - 1
        )

    def session(self, services: Services = Services()) -> Environment:
        return _Session()

    def solution(self, task: Task) -> tuple[Message, ...]:
        bug, package = _bug(task), task.data["package"]
        path = named(bug.file, bug, package)
        arguments = {"path": path, "old": named(bug.wrong, bug, package), "new": named(bug.right, bug, package)}
        call = {
            "id": call_id("edit", 0),
            "type": "function",
            "function": {"name": "edit", "arguments": compact(arguments)},
        }
        return (
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": f"{path} is edited."},
            as_assistant(f"It is mended in {path}."),
        )

    def score(self, trajectory: Trajectory, messages: tuple[Message, ...], state: dict[str, Any]) -> Outcome:
        task = trajectory.task
        bug, preamble = _bug(task), f"from {task.data['package']} import *"
        tests = [named(test, bug, task.data["package"]) for test in (*bug.failing, *bug.passing)]
        wanted = evaluate(repository(bug, task.data["package"], mended=True), preamble, tests).values
        if None in wanted:
            raise RuntimeError(f"the mended repository gives no value for {tests[wanted.index(None)]}")
        found = evaluate(state["files"], preamble, tests)
        passed = [got == value for got, value in zip(found.values, wanted, strict=True)]
        mended, kept = passed[: len(bug.failing)], passed[len(bug.failing) :]
        wrong = next((tests[i] for i, ok in enumerate(passed) if not ok), None)
        return scored(
            self.reference,
            float(all(passed)),
            detail=""
            if wrong is None
            else f"{wrong} gives {found.values[passed.index(False)]}; {found.fault}".rstrip("; "),
            failing_now_pass=sum(mended) / len(mended),
            passing_still_pass=sum(kept) / len(kept),
        )


def _bug(task: Task) -> Bug:
    return next(bug for bug in bugs() if bug.key == task.data["bug"])


def called(workspace: Workspace, call: Mapping[str, Any]) -> Message:
    """What one of TOOLS says; faults of the call are words, too."""
    function = call["function"]
    name, arguments = function["name"], arguments_object(function["arguments"])
    tool = next((tool for tool in TOOLS if tool["name"] == name), None)
    needed = tool["parameters"]["required"] if tool else []
    if tool is None:
        said = f"There is no tool {name!r}; there are shell and edit."
    elif arguments is None or any(not isinstance(arguments.get(key), str) for key in needed):
        said = f"{name} needs {json.dumps(needed)}, each a text."
    else:
        said = getattr(workspace, name)(*(arguments[key] for key in needed))
    return {"role": "tool", "tool_call_id": call["id"], "content": said}


class _Session:
    def __init__(self) -> None:
        self._workspace: Workspace | None = None
        self._turns = self._most = 0

    @property
    def workspace(self) -> Workspace:
        if self._workspace is None:
            raise RuntimeError("a session has to be reset before it is used")
        return self._workspace

    async def reset(self, task: Task, seed: int) -> Observation:
        await self.close()
        self._workspace = await asyncio.to_thread(Workspace, task.data["files"])
        self._turns, self._most = 0, task.data["turns"]
        return Observation(messages=as_user(task.data["prompt"], system=_SYSTEM), tools=TOOLS)

    async def step(self, action: Message) -> StepResult:
        self._turns += 1
        calls = action.get("tool_calls") or ()
        if not calls:
            return StepResult(observation=Observation(messages=()), terminated=True)
        answers = [await asyncio.to_thread(called, self.workspace, call) for call in calls]
        return StepResult(observation=Observation(messages=tuple(answers)), truncated=self._turns >= self._most)

    async def state(self) -> dict[str, Any]:
        return {"files": await asyncio.to_thread(self.workspace.files)}

    async def close(self) -> None:
        if self._workspace is not None:
            await asyncio.to_thread(self._workspace.close)
            self._workspace = None
