"""Program-driven agents: a program that only knows OpenAI's protocol plays, and its environment is what it does between two of its requests.

Each session is a server at a base URL and with a key of its own. The program's first request is the session's beginning, the policy's turn is the answer, and the messages that its
next request adds are the next observation. So the tokens that the policy read and drew are kept as they are (`rl/rollout/player.py`): nothing that it said is encoded again, budgets,
pauses and statuses are those of any other environment, and a rollout may be paused while the program waits for an answer.

A request whose history is not the one so far with something added (the program summarised, cut or rewrote it, or it is another of its agents that asks) begins a new sequence
in the same trajectory: `Observation.restarts`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from abruzzi.contracts.rollout import Task
from abruzzi_jobs.chat.servers.events import Events
from abruzzi_jobs.chat.servers.loopback import completion, error_response, loopback_server
from abruzzi_jobs.rl.environments.environment import Environment, Message, Observation, Services, StepResult
from abruzzi_jobs.rl.environments.gym import Gym
from abruzzi_jobs.sft.conversation import Malformed, read_conversation

MODEL = "policy"
HEARTBEAT_SECONDS = 15.0
"""Of a streamed answer that has not come yet."""
_NOT_SERVED = {
    "n": (None, 1),
    "stop": (None, []),
    "logprobs": (None, False),
    "response_format": (None, {"type": "text"}),
}
"""What would change the answer in a way that the trainer does not know of. Temperature, top_p, seed and max_tokens are the trainer's, and passed over."""


@dataclass(frozen=True, slots=True)
class Access:
    """What a program is told."""

    base_url: str
    api_key: str
    model: str = MODEL

    @property
    def environment(self) -> dict[str, str]:
        """As OpenAI's clients read it."""
        return {"OPENAI_BASE_URL": self.base_url, "OPENAI_API_KEY": self.api_key}


Program = Callable[[Task, Access], Awaitable[Any]]
"""Returns what the reward is to know of it: JSON."""


class ProgramGym(Gym):
    """Subclasses give `play` beside `draw` and `score`, which finds in the session's state: `result` (what `play` returned), `requests`, `restarts`."""

    @abstractmethod
    async def play(self, task: Task, access: Access) -> Any:
        """The program: a coroutine, or one that waits for a process (`agent_process.run_agent`). What it raises ends the trajectory as the environment's error."""

    def session(self, services: Services = Services()) -> Environment:
        return ProgramSession(self.play)


@dataclass(slots=True)
class _Asked:
    """One request of the program's."""

    messages: tuple[Message, ...]
    """In the one form, ids of calls counted anew."""
    raw: Sequence[Mapping[str, Any]]
    tools: tuple[dict[str, Any], ...]
    answer: asyncio.Future[Message]

    def same_question(self, other: _Asked) -> bool:
        return self.messages == other.messages and self.tools == other.tools


@dataclass(slots=True)
class _Unheard:
    """A turn whose request was given up before it came: the client ran out of patience, and asks again."""

    asked: _Asked
    answer: Message


class ProgramSession:
    """One at a time: requests that a program makes at once are answered in the order in which they came."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._stack = AsyncExitStack()
        self._requests: asyncio.Queue[_Asked] = asyncio.Queue()
        self._running: asyncio.Task[Any] | None = None
        self._asked: _Asked | None = None
        """What the policy answers now."""
        self._tools: tuple[dict[str, Any], ...] = ()
        self._unheard: _Unheard | None = None
        self._history: list[Mapping[str, Any]] = []
        """As the program knows it, with the policy's last turn."""
        self._count = self._restarts = 0

    # Environment

    async def reset(self, task: Task, seed: int) -> Observation:
        if self._running is not None:
            raise RuntimeError("a program plays once: make another session")
        key = secrets.token_urlsafe(24)
        url = await self._stack.enter_async_context(loopback_server(self._complete, key=key, model=MODEL))
        self._running = asyncio.ensure_future(self._program(task, Access(url, key)))
        asked = await self._next()
        if asked is None:
            raise RuntimeError("the program has ended without asking the policy for anything")
        return self._observed(asked, is_first=True)

    async def step(self, action: Message) -> StepResult:
        assert self._asked is not None
        asked, self._asked = self._asked, None
        said = _spoken(action)
        if asked.answer.done():
            self._unheard = _Unheard(asked, said)
        else:
            asked.answer.set_result(said)
        self._history = [*asked.raw, said]
        following = await self._next()
        if following is None:
            return StepResult(observation=Observation(messages=()), terminated=True)
        return StepResult(observation=self._observed(following, is_first=False))

    async def state(self) -> dict[str, Any]:
        is_over = self._running is not None and self._running.done() and not self._running.cancelled()
        result = self._running.result() if is_over and self._running is not None else None
        return {"result": result, "requests": self._count, "restarts": self._restarts}

    async def close(self) -> None:
        """Ends the program; what it still asks is broken off."""
        running, self._running = self._running, None
        if running is not None and not running.done():
            running.cancel()
            await asyncio.wait({running})
        await self._stack.aclose()

    # Between them

    async def _next(self) -> _Asked | None:
        """The program's next request; None where it has ended. Raises what it raised."""
        assert self._running is not None
        while True:
            coming = asyncio.ensure_future(self._requests.get())
            try:
                await asyncio.wait({coming, self._running}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not coming.done():
                    coming.cancel()
            if coming.done() and not coming.cancelled():
                asked = coming.result()
                unheard, self._unheard = self._unheard, None
                if unheard is not None and asked.same_question(unheard.asked) and not asked.answer.done():
                    asked.answer.set_result(unheard.answer)
                    continue
                return asked
            self._running.result()
            return None

    def _observed(self, asked: _Asked, *, is_first: bool) -> Observation:
        self._asked = asked
        self._count += 1
        if is_first:
            self._tools = asked.tools
            return Observation(messages=asked.messages, tools=asked.tools)
        known = read_conversation({"messages": self._history}).messages
        more = asked.messages[len(known) :]
        goes_on = asked.messages[: len(known)] == known and asked.tools == self._tools
        if goes_on and more and all(message["role"] != "assistant" for message in more):
            # With the ids that the policy gave its calls.
            added = [_observation(raw) for raw in asked.raw[len(known) :]]
            return Observation(messages=tuple(added))
        self._restarts += 1
        self._tools = asked.tools
        return Observation(messages=asked.messages, tools=asked.tools, restarts=True)

    # The server

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        try:
            body = await request.json()
        except json.JSONDecodeError as error:
            return error_response(400, "invalid_request_error", f"The body is no JSON: {error}.")
        problem, asked = self._read(body)
        if asked is None:
            return error_response(400, "invalid_request_error", problem)
        self._requests.put_nowait(asked)
        try:
            if body.get("stream"):
                return await self._stream(request, asked)
            message = await asked.answer
            return web.json_response(completion(message, model=MODEL, finish_reason=_finish(message), usage=None))
        finally:
            asked.answer.cancel()  # of a client that has gone; one that is answered is done

    def _read(self, body: Any) -> tuple[str, _Asked | None]:
        """(what is wrong, what is asked)"""
        if not isinstance(body, dict):
            return "The body is no JSON object.", None
        for name, served in _NOT_SERVED.items():
            if body.get(name) not in served:
                return f"{name}: not served to an agent that is trained: the trainer would not know of it.", None
        if body.get("tool_choice") not in (None, "auto", "none"):
            return 'tool_choice: the choice is the policy\'s ("auto"), or "none".', None
        try:
            read = read_conversation(body)
        except Malformed as error:
            return f"messages: {error}. {error.hint}", None
        tools = () if body.get("tool_choice") == "none" else read.tools
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return "", _Asked(read.messages, body["messages"], tools, answer)

    async def _stream(self, request: web.Request, asked: _Asked) -> web.StreamResponse:
        """The turn in one piece, when it has ended: until then nobody knows whether its tokens are text or a call. The line is held meanwhile."""
        events = await Events.begun(request, model=MODEL)
        while not asked.answer.done():
            await asyncio.wait({asked.answer}, timeout=HEARTBEAT_SECONDS)
            if not asked.answer.done():
                await events.heartbeat()
        message = asked.answer.result()
        if message["content"]:
            await events.delta({"content": message["content"]})
        if message.get("tool_calls"):
            await events.calls(message["tool_calls"])
        await events.delta({}, finish_reason=_finish(message))
        return await events.done()


def _spoken(action: Message) -> Message:
    """As the protocol has it. A malformed turn is text."""
    said: Message = {"role": "assistant", "content": action.get("content") or ""}
    if action.get("tool_calls"):
        said |= {"content": said["content"] or None, "tool_calls": action["tool_calls"]}
    return said


def _finish(message: Message) -> str:
    return "tool_calls" if message.get("tool_calls") else "stop"


def _observation(raw: Mapping[str, Any]) -> Message:
    return {key: raw[key] for key in ("role", "content", "tool_call_id") if key in raw}
