"""A small stage for tests of trajectories: tasks made by hand, players that say what they are told, tool servers that misbehave."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from tool_servers import server

from abruzzi.contracts.agent import (
    AgentSpec,
    AnswerClause,
    CallClause,
    Clause,
    Persona,
    RealGround,
    Task,
    ToolName,
    WorldGround,
)
from abruzzi.contracts.synthesis import FaultRates, SynthesisConfig
from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.chat.request import ChatRequest, ChatResponse, ToolCall, Usage
from abruzzi_jobs.synthesis.evolution import synthetic_tools
from abruzzi_jobs.synthesis.mcp import Patience
from abruzzi_jobs.synthesis.trajectories.engine import Cast, Engine, Machine
from abruzzi_jobs.synthesis.trajectories.plan import Planned
from abruzzi_jobs.synthesis.trajectories.servers import Kind, ServerPools
from abruzzi_jobs.synthesis.trajectories.toolbox import Toolbox

SOURCE = "mcp:double@1"
DOUBLE = ToolSpec(
    name="double",
    description="Twice n",
    input_schema={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    source=SOURCE,
    licence="Apache-2.0",
)
NO_FAULTS = FaultRates(unavailable=0.0, rate_limited=0.0, lost_answer=0.0, partial=0.0)
PATIENT = Patience(start_seconds=120, answer_seconds=120, message_bytes=1 << 16, noise_lines=5)
"""On a busy machine."""
HASTE = replace(PATIENT, answer_seconds=2)
"""For an answer that never comes."""

Line = str | dict[str, Any] | list[dict[str, Any]] | Exception
"""What a player says: words, a call {"tool": …, …arguments}, calls side by side, or why it cannot answer."""


def use(tool: str, arguments: Any = None, **given: Any) -> dict[str, Any]:
    """`arguments`: as they stand, where they are a text."""
    return {"tool": tool, "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments or given)}


class Lines:
    """An agent and a backend that says its lines in turn, then the last one again. `asked` is what it heard."""

    def __init__(self, *lines: Line, generator: str = "lines", is_llm: bool = True) -> None:
        self._lines, self._said = lines, 0
        self._generator, self._is_llm = generator, is_llm
        self.asked: list[list[dict[str, Any]]] = []

    async def reply(self, messages: Sequence[dict[str, Any]], toolbox: Toolbox) -> ChatResponse:
        return self._say(messages)

    async def complete(self, request: ChatRequest) -> ChatResponse:
        return self._say(request.messages)

    def _say(self, messages: Any) -> ChatResponse:
        self.asked.append([dict(message) for message in messages])
        line = self._lines[min(self._said, len(self._lines) - 1)]
        self._said += 1
        if isinstance(line, Exception):
            raise line
        calls = [line] if isinstance(line, dict) else line if isinstance(line, list) else []
        return ChatResponse(
            text=line if isinstance(line, str) else "",
            tool_calls=tuple(ToolCall("", call["tool"], call["arguments"]) for call in calls),
            usage=Usage(10, 5),
            model="lines",
            generator=self._generator,
            is_llm=self._is_llm,
            call_id=f"{self._said:064x}",
        )


class Content:
    """A user who asks once and is content with the first words."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.ended: str | None = None
        self.fallbacks: Counter[str] = Counter()

    def first(self) -> str:
        return self._task.instruction

    def next(self, messages: Sequence[dict[str, Any]]) -> ChatRequest | str | None:
        self.ended = "user"
        return None

    def read(self, text: str | None) -> tuple[str, bool]:
        return text or "", True


@cache
def world_tools(application: int = 0) -> list[ToolSpec]:
    """Of one synthetic application."""
    tools = synthetic_tools(0, 1)
    source = sorted({tool.source for tool in tools})[application]
    return [tool for tool in tools if tool.source == source][:12]


def task_of(
    number: int, tools: Sequence[ToolSpec], *, rubric: Sequence[Clause] = (), instruction: str = "Please do it."
) -> tuple[Task, AgentSpec]:
    source = tools[0].source
    ground = WorldGround(source=source, seed=number) if tools[0].is_synthetic else RealGround(servers=("double",))
    agent = AgentSpec(
        id=f"agent-{number:012x}",
        system_prompt="You help.",
        tools=tuple(ToolName(name=tool.name, source=tool.source) for tool in tools),
        generator="lab",
    )
    clauses = tuple(rubric) or (CallClause(id="called", text="A tool was called", at_least=1),)
    task = Task(
        id=f"task-{number:012x}",
        agent_id=agent.id,
        instruction=instruction,
        difficulty="simple",
        persona=Persona(name="Ada", style="brief", hidden_goal="It is done."),
        ground=ground,
        plan=(),
        reference_answer="",
        rubric=clauses,
        generator="lab",
    )
    return task, agent


def says(*words: str) -> AnswerClause:
    return AnswerClause(id="says", text=f"It says {', '.join(words)}", contains=words)


def planned(
    number: int, tools: Sequence[ToolSpec], *, faults: FaultRates = NO_FAULTS, rubric: Sequence[Clause] = ()
) -> Planned:
    task, agent = task_of(number, tools, rubric=rubric)
    return Planned(
        index=number,
        id=f"trajectory-{number:016x}",
        seed=number,
        task=task,
        agent=agent,
        toolbox=Toolbox(tools),
        faults=faults,
    )


def double_pools(change: str = "", **more: Any) -> ServerPools:
    """Of one kind of server, changed to misbehave."""
    kind = Kind(source=SOURCE, start=lambda _: server(change), is_stateless=more.pop("is_stateless", False))
    return ServerPools([kind], patience=more.pop("patience", PATIENT), **more)


def engine(agent: Any, machine: Machine | None = None, *, user_backend: Any = None, **settings: Any) -> Engine:
    """`agent`: one for all, or a function of the planned conversation."""
    make = agent if callable(agent) else lambda _: agent
    config = SynthesisConfig(**{"synthetic": 1, "concurrency": 4, **settings})
    return Engine(Cast(agent=make, user=Content, user_backend=user_backend), machine or Machine(), config)


async def rows_of(engine: Engine, work: Sequence[Planned]) -> list[dict[str, Any]]:
    """In the order of the work."""
    rows: dict[str, dict[str, Any]] = {}

    async def take(row: dict[str, Any]) -> None:
        rows[row["id"]] = row

    await engine.run(work, take)
    return [rows[planned.id] for planned in work]
