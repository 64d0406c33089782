"""A kind of environment: where its tasks come from, how a session begins, what an end is worth."""

from __future__ import annotations

import hashlib
import json
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.graph import nearest
from abruzzi.contracts.rollout import Outcome, Task, Trajectory
from abruzzi.contracts.training import Strict
from abruzzi_jobs.data.documents import choice
from abruzzi_jobs.rl.environments.environment import Environment, Message, Services

Split = Literal["train", "held_out"]
HELD_OUT_PERCENT = 20
_DRAWS = 400
"""Until one falls into the split and can be asked."""
_LICENCE = "Apache-2.0"


class Options(Strict):
    """Of a gym that has none."""


class Gym(ABC):
    """Subclasses give `draw`, `session` and `score`. The reward is made anew in a process of its own from `reference` alone, so `score` may look at the
    task, the messages and the session's state, never at the options: what it needs of them stands in the task's data."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    summary: ClassVar[str]
    families: ClassVar[tuple[str, ...]]
    """Budgets, temperatures and difficulties are set by them."""
    roles: ClassVar[tuple[str, ...]] = ()
    """That its sessions ask where they are there."""
    replays: ClassVar[bool] = True
    """Whether the same actions in a new session give the same observations, to the letter: what a rollout that lost its session goes on from."""
    Options: ClassVar[type[Strict]] = Options

    def __init__(self, options: Mapping[str, Any] | None = None, *, key: str | None = None) -> None:
        """Raises pydantic.ValidationError for options that it does not have. `key`: under which the registry knows it, if not its name."""
        self.options: Any = self.Options.model_validate(dict(options or {}))
        self.key = key or self.name

    @property
    def reference(self) -> str:
        return f"{self.key}@{self.version}"

    def refuse_unless_ready(self) -> None:  # noqa: B027 (most need nothing)
        """Raises AbruzziError where this machine lacks what it needs (a package, a sandbox): before any rollout, not in one."""

    @abstractmethod
    def draw(self, draw: random.Random, family: str) -> dict[str, Any] | None:
        """A problem: JSON, all that a session and the reward need. None where this draw gave none."""

    @abstractmethod
    def session(self, services: Services = Services()) -> Environment: ...

    @abstractmethod
    def score(self, trajectory: Trajectory, messages: tuple[Message, ...], state: dict[str, Any]) -> Outcome: ...

    def solution(self, task: Task) -> tuple[Message, ...]:
        """What a policy that knows the answer would say, with the tools' answers between; empty where nobody knows."""
        return ()

    def identity(self, data: Mapping[str, Any]) -> str:
        """What must not be in both splits: the question, or all of the problem where there is none."""
        return str(data["prompt"]) if "prompt" in data else canonical(data)

    def task(self, seed: int, index: int, *, split: Split = "train", family: str | None = None) -> Task:
        """The same for the same arguments, and of any index, so that no cursor need be kept. Whether a problem is held out follows from the problem
        alone, so the splits share none whatever the seeds. Raises AbruzziError `unknown_family`, `too_few_tasks`."""
        if family is not None and family not in self.families:
            raise AbruzziError(
                "unknown_family",
                f"The environment {self.key} has no family {family!r}.",
                hint=nearest(family, list(self.families)),
            )
        for attempt in range(_DRAWS):
            draw = random.Random(f"{self.key}/{seed}/{split}/{index}/{attempt}")
            chosen = family or draw.choice(self.families)
            data = self.draw(draw, chosen)
            if data is not None and self.is_held_out(data) == (split == "held_out"):
                return Task(
                    id=f"{self.name}-{_digest(canonical(data))}",
                    family=chosen,
                    environment=self.reference,
                    seed=draw.getrandbits(31),
                    data=data,
                )
        raise AbruzziError(
            "too_few_tasks",
            f"{_DRAWS} draws of {self.key} gave no task of the split {split!r}{f' and family {family!r}' if family else ''}.",
            hint="Widen its options.",
        )

    def tasks(self, seed: int, count: int, *, split: Split = "train", family: str | None = None) -> list[Task]:
        """The first `count` different ones. Raises AbruzziError `too_few_tasks`."""
        found: dict[str, Task] = {}
        for index in range(count * 20 + _DRAWS):
            if len(found) == count:
                break
            task = self.task(seed, index, split=split, family=family)
            found.setdefault(task.id, task)
        if len(found) < count:
            raise AbruzziError(
                "too_few_tasks",
                f"{self.key} has hardly more than {len(found)} different tasks with these options, not {count}.",
                hint="Ask for fewer, or widen its options.",
            )
        return list(found.values())

    def is_held_out(self, data: Mapping[str, Any]) -> bool:
        return choice(f"{self.name}/{self.identity(data)}", 100) < HELD_OUT_PERCENT

    async def conversation(self, task: Task) -> dict[str, Any] | None:
        """A row that an `sft` stage learns from: how the session begins, and a solution. None where there is none."""
        said = self.solution(task)
        if not said:
            return None
        session = self.session()
        try:
            begin = await session.reset(task, task.seed)
        finally:
            await session.close()
        return {
            "id": task.id,
            "messages": [*begin.messages, *said],
            "tools": list(begin.tools),
            "source": task.environment,
            "licence": _LICENCE,
            "generator": task.environment,
            "is_llm": False,
        }


def canonical(data: Any) -> str:
    return json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
