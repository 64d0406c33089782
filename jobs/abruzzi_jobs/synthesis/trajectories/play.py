"""Plays one conversation: user, agent and tools in turn, until the user is done or a limit is reached."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from abruzzi.contracts.agent import AgentSpec, CallRecord, Task
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.chat.failures import CallRejected
from abruzzi_jobs.chat.request import ChatBackend, ChatRequest, ChatResponse, ToolCall
from abruzzi_jobs.synthesis.mcp import ServerFault
from abruzzi_jobs.synthesis.trajectories.episode import ENDED_WELL, Episode
from abruzzi_jobs.synthesis.trajectories.grounds import Executed, Ground
from abruzzi_jobs.synthesis.trajectories.speakers import Agent
from abruzzi_jobs.synthesis.trajectories.toolbox import Slip, Toolbox
from abruzzi_jobs.synthesis.world import BrokenTool

SCRIPT = "script"
"""Generator of a user who says nothing but what its task says."""
_ENDINGS = ("server_quarantined",)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    max_turns: int = 12
    max_tokens: int = 32_768
    max_calls: int = 8


class User(Protocol):
    """The simulated user of one conversation: it says what to ask a model, or what is said without one. `ended`: "user" once it has what it wanted,
    "patience" once it has had enough."""

    ended: str | None
    fallbacks: Counter[str]
    """Answers of the model that were not taken, by reason."""

    def first(self) -> str: ...

    def next(self, messages: Sequence[dict[str, Any]]) -> ChatRequest | str | None:
        """None: it is gone."""
        ...

    def read(self, text: str | None) -> tuple[str, bool]:
        """(what it says, whether it is done) of a model's answer; None: there was none."""
        ...


class _Ended(Exception):
    def __init__(self, by: str, why: str = "") -> None:
        super().__init__(by)
        self.by, self.why = by, why


async def play(
    task: Task,
    agent_spec: AgentSpec,
    toolbox: Toolbox,
    *,
    agent: Agent,
    user: User,
    user_backend: ChatBackend | None,
    ground: Ground,
    bounds: Bounds,
) -> Episode:
    """What went wrong with this conversation is in the Episode; what ends all of them (an endpoint that is down, a budget) is raised."""
    episode = Episode(messages=[{"role": "system", "content": agent_spec.system_prompt}])
    async with ground:
        episode.before, episode.digest_before = ground.state()
        try:
            await _Conversation(episode, toolbox, agent, user, user_backend, ground, bounds).run()
        except _Ended as ended:
            episode.ended_by, episode.why = ended.by, ended.why
        if episode.ended_by in ENDED_WELL:
            try:
                episode.probes = await ground.probe()
            except ServerFault as fault:
                episode.ended_by, episode.why = fault.code, fault.message
        episode.after, episode.digest_after = ground.state()
    episode.user_fallbacks = user.fallbacks
    return episode


class _Conversation:
    def __init__(
        self,
        episode: Episode,
        toolbox: Toolbox,
        agent: Agent,
        user: User,
        user_backend: ChatBackend | None,
        ground: Ground,
        bounds: Bounds,
    ) -> None:
        self._episode, self._messages = episode, episode.messages
        self._toolbox, self._agent = toolbox, agent
        self._user, self._user_backend = user, user_backend
        self._ground, self._bounds = ground, bounds

    async def run(self) -> None:
        """Raises _Ended, always."""
        self._messages.append({"role": "user", "content": self._user.first()})
        self._episode.generators["user"] = SCRIPT
        while True:
            response = await self._reply()
            if response.tool_calls:
                await self._use(response)
            else:
                self._messages.append({"role": "assistant", "content": response.text})
                await self._hear()

    async def _reply(self) -> ChatResponse:
        episode, bounds = self._episode, self._bounds
        if episode.turns >= bounds.max_turns:
            raise _Ended("turns", f"The agent had its {bounds.max_turns} messages.")
        if episode.agent_tokens >= bounds.max_tokens:
            raise _Ended("tokens", f"The agent used {episode.agent_tokens} of its {bounds.max_tokens} tokens.")
        try:
            response = await self._agent.reply(self._messages, self._toolbox)
        except CallRejected as rejected:
            raise _Ended(f"agent_{rejected.reason}", rejected.message) from None
        episode.turns += 1
        episode.heard("agent", response)
        if not response.tool_calls and not response.text.strip():
            raise _Ended("empty", "The agent said nothing.")
        return response

    async def _hear(self) -> None:
        user = self._user
        said, ended = user.next(self._messages), False
        if isinstance(said, ChatRequest):
            said, ended = user.read(await self._asked(said))
        if said is not None and said.strip():
            self._messages.append({"role": "user", "content": said})
        if ended or said is None:
            raise _Ended(user.ended or "user")

    async def _asked(self, request: ChatRequest) -> str | None:
        """What the model says in the user's place; None where it has no usable answer."""
        if self._user_backend is None:
            raise ValueError("a user that asks a model, and no model for it")
        try:
            response = await self._user_backend.complete(request)
        except CallRejected:
            return None
        self._episode.heard("user", response)
        return response.text

    async def _use(self, response: ChatResponse) -> None:
        """Calls of one message: those of the world one after the other, those of servers side by side, answered in their order."""
        number = len(self._episode.calls)
        calls = [
            ToolCall(f"call_{number + i}", call.name, call.arguments) for i, call in enumerate(response.tool_calls)
        ]
        turn: dict[str, Any] = {"role": "assistant", "content": response.text or None}
        self._messages.append(turn | {"tool_calls": [call.as_dict() for call in calls]})
        read = [self._read(index, call) for index, call in enumerate(calls)]
        try:
            done = await execute_all(self._ground, read)
        except ServerFault as fault:
            raise _Ended(fault.code, fault.message) from None
        except BrokenTool as broken:
            raise _Ended("broken_tool", broken.message) from None
        except AbruzziError as error:
            if error.code not in _ENDINGS:
                raise
            raise _Ended(error.code, error.message) from None
        for call, what, executed in zip(calls, read, done, strict=True):
            self._take(call, what, executed)

    def _read(self, index: int, call: ToolCall) -> tuple[ToolSpec, dict[str, Any]] | Slip:
        most = self._bounds.max_calls
        if index >= most:
            return Slip("too_many_calls", f"At most {most} calls at a time; this one was not made.")
        return self._toolbox.read(call)

    def _take(self, call: ToolCall, what: tuple[ToolSpec, dict[str, Any]] | Slip, executed: Executed) -> None:
        episode = self._episode
        if isinstance(what, Slip):
            episode.slips[what.code] += 1
        tool = None if isinstance(what, Slip) else what[0]
        episode.calls.append(
            CallRecord(
                turn=episode.turns,
                tool=call.name,
                source=tool.source if tool else "",
                arguments=what[1] if not isinstance(what, Slip) else {},
                answer=executed.answer,
                ok=executed.ok,
                fault=executed.fault,
                changes=executed.changes,
                is_real=executed.is_real,
            )
        )
        self._messages.append({"role": "tool", "tool_call_id": call.id, "content": told(executed.answer)})


async def execute_all(ground: Ground, read: Sequence[tuple[ToolSpec, dict[str, Any]] | Slip]) -> list[Executed]:
    """In the order given."""
    done: list[Executed | None] = [None] * len(read)
    waiting = []
    for index, what in enumerate(read):
        if isinstance(what, Slip):
            done[index] = Executed(answer=what.answer(), ok=False)
        elif what[0].is_synthetic:
            done[index] = ground.simulate(*what)
        else:
            waiting.append(index)
    if waiting:
        results = await asyncio.gather(*(_call(ground, read[i]) for i in waiting), return_exceptions=True)
        for index, result in zip(waiting, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            done[index] = result
    return [executed for executed in done if executed is not None]


async def _call(ground: Ground, what: Any) -> Executed:
    return await ground.call(*what)


def told(answer: Any) -> str:
    """What the agent reads."""
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
