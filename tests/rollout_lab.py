"""Rollouts without a model: an engine that says what a script makes of a prompt and a seed, an environment with a tool, a tokenizer of 300 tokens."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from abruzzi.contracts.rollout import Ending, Segment, Status, Task, TokenSource, Trajectory
from abruzzi_jobs.data.encoding import special_id
from abruzzi_jobs.rl.engine.protocol import EngineStats, Generated, Request
from abruzzi_jobs.rl.environments.environment import Message, Observation, StepResult
from abruzzi_jobs.sft.conversation import call_id
from abruzzi_jobs.sft.template import ChatTemplate

Speak = Callable[[Sequence[int], int], Sequence[int]]
"""(prompt, seed) -> the whole turn with its end; what is cut goes on where it was."""
ADD = {
    "name": "add",
    "description": "Adds a number to the sum.",
    "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]},
}


class ScriptedEngine:
    """What of the Engine protocol rollouts meet. A token a step; a log-probability is of (seed, position), so that a wrong one shows."""

    def __init__(self, speak: Speak, *, opening_ends_with: int, capacity: int = 10_000) -> None:
        self.version = 0
        self.requests: list[Request] = []
        self._speak, self._opening, self._capacity = speak, opening_ends_with, capacity
        self._running: dict[str, tuple[Request, list[int], Sequence[int]]] = {}
        """By id: what was drawn, and what is to come."""
        self._is_paused = False
        self._generated = 0

    def submit(self, request: Request) -> None:
        if request.id in self._running:
            raise ValueError(f"request {request.id} is in use")
        self.requests.append(request)
        begins = len(request.tokens) - request.tokens[::-1].index(self._opening)
        turn = self._speak(request.tokens[:begins], request.seed)
        self._running[request.id] = (request, [], turn[len(request.tokens) - begins :])

    def step(self) -> list[Generated]:
        ended = []
        for name, (request, drawn, rest) in [] if self._is_paused else list(self._running.items()):
            drawn.append(rest[len(drawn)])
            self._generated += 1
            if drawn[-1] in request.stop_tokens:
                ended.append(self._end(name, Ending.STOP))
            elif len(drawn) == request.max_tokens:
                ended.append(self._end(name, Ending.LENGTH))
        return ended

    def cancel(self, request_id: str) -> Generated | None:
        return self._end(request_id, Ending.ABORTED) if request_id in self._running else None

    def pause(self, mode: Literal["keep", "abort"]) -> list[Generated]:
        self._is_paused = True
        return [self._end(name, Ending.PAUSED) for name in list(self._running)] if mode == "abort" else []

    def resume(self) -> None:
        self._is_paused = False

    def stats(self) -> EngineStats:
        return EngineStats(
            version=self.version,
            running=len(self._running),
            waiting=0,
            cache_tokens=sum(len(request.tokens) + len(drawn) for request, drawn, _ in self._running.values()),
            cache_capacity=self._capacity,
            prompt_tokens=0,
            shared_tokens=0,
            generated_tokens=self._generated,
        )

    def _end(self, name: str, ending: Ending) -> Generated:
        request, drawn, _ = self._running.pop(name)
        segment = Segment(
            source=TokenSource.POLICY,
            tokens=tuple(drawn),
            logprobs=tuple(logprob(request.seed, len(request.tokens) + i) for i in range(len(drawn))),
            policy_version=self.version,
            temperature=request.temperature,
            ending=ending,
        )
        return Generated(name, segment)


def logprob(seed: int, position: int) -> float:
    return -uniform("logprob", seed, position)


def uniform(*of: Any) -> float:
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:6], "big") / 2**48


class ScriptedFront:
    """What a rollout wants of AsyncEngine, without its thread: one step at each turn of the event loop, so that a seed decides all."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.engine = engine
        self.failure: Exception = ConnectionError("the engine is gone")
        self.failures = 0
        """Requests that fail from now on."""
        self._waiting: dict[str, asyncio.Future[Segment]] = {}
        self._driver: asyncio.Task[None] | None = None

    async def generate(self, request: Request) -> Segment:
        if self.failures:
            self.failures -= 1
            raise self.failure
        future: asyncio.Future[Segment] = asyncio.get_running_loop().create_future()
        self.engine.submit(request)
        self._waiting[request.id] = future
        if self._driver is None or self._driver.done():
            self._driver = asyncio.create_task(self._drive())
        try:
            return await future
        except asyncio.CancelledError:
            await self.cancel(request.id)
            raise

    async def cancel(self, request_id: str) -> None:
        if self.failures:
            raise self.failure
        ended = self.engine.cancel(request_id)
        self._hand_out([] if ended is None else [ended])

    async def pause(self, mode: Literal["keep", "abort"]) -> None:
        self._hand_out(self.engine.pause(mode))

    async def resume(self) -> None:
        self.engine.resume()

    def stats(self) -> EngineStats:
        return self.engine.stats()

    async def _drive(self) -> None:
        while self._waiting:
            self._hand_out(self.engine.step())
            await asyncio.sleep(0)

    def _hand_out(self, ended: Sequence[Generated]) -> None:
        for one in ended:
            future = self._waiting.pop(one.request_id)
            if not future.done():
                future.set_result(one.segment)


@dataclass
class Adding:
    """Adds up what the policy calls `add` with; over when the sum is reached, or when it only talks. All that it does follows from the task."""

    log: list[str] = field(default_factory=list)
    """Of all its calls."""
    sum: int = 0
    turns: int = 0
    hold: asyncio.Event | None = None
    """A step waits for it."""
    raises: dict[str, BaseException] = field(default_factory=dict)
    """By method."""

    async def reset(self, task: Task, seed: int) -> Observation:
        self._called("reset")
        self.task = task
        return Observation(messages=({"role": "user", "content": f"Add up to {task.data['target']}."},), tools=(ADD,))

    async def step(self, action: Message) -> StepResult:
        self._called("step")
        if self.hold is not None:
            await self.hold.wait()
        self.turns += 1
        told: list[Message] = []
        for call in action.get("tool_calls", ()):
            self.sum += int(json.loads(call["function"]["arguments"]).get("number", 0))
            told.append({"role": "tool", "tool_call_id": call["id"], "content": str(self.sum)})
        if not told:
            told.append({"role": "user", "content": f"({action.get('malformed', 'no call')}) Go on."})
        is_cut = self.turns >= self.task.data.get("turns", 1000)
        reached = self.sum >= self.task.data["target"]
        return StepResult(observation=Observation(messages=tuple(told)), terminated=reached, truncated=is_cut)

    async def state(self) -> dict[str, Any]:
        self._called("state")
        return {"sum": self.sum}

    async def close(self) -> None:
        self._called("close")

    def _called(self, method: str) -> None:
        self.log.append(method)
        if method in self.raises:
            raise self.raises[method]


def adding_task(number: int = 0, *, target: int = 12, **data: Any) -> Task:
    return Task(id=f"add-{number}", family="adding", environment="adding@1", data={"target": target, **data})


def begun(task: Task, *, group: str = "g0000000", member: int = 0) -> Trajectory:
    return Trajectory(id=f"{group}/{member}", group=group, member=member, task=task, segments=(), status=Status.PARTIAL)


def adding_policy(template: ChatTemplate, *, wrong: float = 0.1) -> Speak:
    """Calls `add` with 1 to 5, sometimes says something that is no call, or a call that breaks off; of (prompt, seed) alone."""
    encode = template.tokenizer.encode

    def marker(name: str) -> int:
        return special_id(template.tokenizer, name)

    names = template.markers

    def speak(prompt: Sequence[int], seed: int) -> list[int]:
        told = uniform(seed, len(prompt))
        said = list(encode(f"Step {seed % 97} of {len(prompt)}.").ids)
        calls = sum(token == marker(names.call_begin) for token in prompt)
        if told < wrong / 2:
            return [*said, template.end]
        arguments = encode(json.dumps({"number": 1 + int(told * 1000) % 5}, separators=(",", ":"))).ids
        call = [marker(names.call_begin), *encode(call_id("add", calls)).ids, marker(names.argument_begin), *arguments]
        if told < wrong:
            return [*said, marker(names.section_begin), *call, template.end]
        whole = [marker(names.section_begin), *call, marker(names.call_end), marker(names.section_end)]
        return [*said, *whole, template.end]

    return speak
