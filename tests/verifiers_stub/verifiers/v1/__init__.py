from __future__ import annotations

import inspect
import itertools
import json
import os
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")


class TaskConfig(BaseModel):
    pass


class TasksetConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")
    id: str
    task: TaskConfig = TaskConfig()


class TaskData(BaseModel):
    model_config = ConfigDict(frozen=True)
    prompt: str | None = None


class Task(Generic[T]):
    def __init__(self, data: Any, config: TaskConfig) -> None:
        self.data, self.config = data, config


class Taskset(ABC, Generic[T]):
    def __init__(self, config: TasksetConfig) -> None:
        self.config = config

    @abstractmethod
    def load(self) -> Iterable[T]: ...

    def include(self, *, idx: list[int]) -> Iterator[T]:
        return itertools.islice(iter(self.load()), idx[0], idx[0] + 1)


def reward(function: Callable[..., Any]) -> Callable[..., Any]:
    function.scores = "rewards"  # type: ignore[attr-defined]
    return function


def metric(function: Callable[..., Any]) -> Callable[..., Any]:
    function.scores = "metrics"  # type: ignore[attr-defined]
    return function


class Reward(BaseModel):
    score: float

    @property
    def value(self) -> float:
        return self.score


class Failure(BaseModel):
    type: str
    message: str


class Trace:
    def __init__(self, last_reply: str) -> None:
        self.last_reply = last_reply
        self.rewards: dict[str, Reward | None] = {}
        self.metrics: dict[str, float | None] = {}
        self.errors: list[Any] = []


class AgentConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")
    model: str
    harness: dict[str, Any]
    runtime: dict[str, Any]
    client: dict[str, Any]


class Agent:
    """The harness `null`: one question, one answer."""

    def __init__(self, config: AgentConfig) -> None:
        self.config = config

    async def __aenter__(self) -> Agent:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def run(self, task: Task[Any]) -> Trace:
        client = self.config.client
        body = {"model": self.config.model, "messages": [{"role": "user", "content": task.data.prompt}]}
        headers = {"Authorization": f"Bearer {os.environ[client['api_key_var']]}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{client['base_url']}/chat/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=240) as answer:
            trace = Trace(json.load(answer)["choices"][0]["message"]["content"])
        for name, function in inspect.getmembers(task, lambda member: hasattr(member, "scores")):
            try:
                value = await function(trace)
            except Exception as error:
                trace.errors.append(Failure(type=type(error).__name__, message=str(error)))
                value = None
            if function.scores == "rewards":
                trace.rewards[name] = None if value is None else Reward(score=value)
            else:
                trace.metrics[name] = value
        return trace
