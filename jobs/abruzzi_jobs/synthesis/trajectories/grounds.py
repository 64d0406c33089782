"""Where the calls of one conversation are executed: its own world, its own tool servers, its own sandbox."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from abruzzi.contracts.agent import Change, ProbeClause, ProbeRecord, RealGround, Task, WorldGround
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.synthesis import FaultRates
from abruzzi.contracts.tool import StateSchema, ToolSpec
from abruzzi_jobs.synthesis.trajectories.programs import PYTHON_SOURCE, Programs
from abruzzi_jobs.synthesis.trajectories.servers import ServerPools, Talk
from abruzzi_jobs.synthesis.world import Schedule, Snapshot, World, digest_of


@dataclass(frozen=True, kw_only=True)
class Executed:
    """`answer` is what the agent is told: an object of a synthetic tool, a text of a real one."""

    answer: Any
    ok: bool
    fault: str | None = None
    changes: tuple[Change, ...] = ()
    is_real: bool = False


class Places(Protocol):
    """What grounds take from, shared by many conversations. Absent: there is none of it here."""

    @property
    def servers(self) -> ServerPools | None: ...
    @property
    def programs(self) -> Programs | None: ...


class Ground:
    """Of one conversation. An async context manager, so that nothing of it outlives the conversation."""

    def __init__(
        self, task: Task, tools: dict[str, ToolSpec], *, seed: int, faults: FaultRates, places: Places
    ) -> None:
        self._task, self._places = task, places
        self._files = task.ground.files if isinstance(task.ground, RealGround) else {}
        self._world = _world(task.ground, tools, seed, faults) if isinstance(task.ground, WorldGround) else None
        self._talks: dict[str, Talk] = {}
        self._stack = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._folder: Any = None

    async def __aenter__(self) -> Ground:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._world is not None:
            self._world.close()
        await self._stack.aclose()

    def state(self) -> tuple[Snapshot | None, str | None]:
        """Rows and digest of the world, where there is one."""
        if self._world is None:
            return None, None
        snapshot = self._world.snapshot()
        return snapshot, digest_of(snapshot)

    async def call(self, tool: ToolSpec, arguments: dict[str, Any]) -> Executed:
        """Raises ServerFault where a tool server misbehaves, BrokenTool where a synthetic tool does; never for what the caller did."""
        if tool.is_synthetic:
            return self.simulate(tool, arguments)
        if tool.source == PYTHON_SOURCE:
            return await self._run(arguments)
        talk = await self._talk(tool.source)
        ok, text = await talk.call(tool.name, arguments)
        return Executed(answer=text, ok=ok, is_real=True)

    def simulate(self, tool: ToolSpec, arguments: dict[str, Any]) -> Executed:
        if self._world is None:
            raise AbruzziError("wrong_world", f"{tool.name} of {tool.source} has no world in task {self._task.id}.")
        outcome = self._world.call(tool, arguments)
        changes = tuple(Change(**change) for change in outcome.changes)
        return Executed(answer=outcome.answer, ok=outcome.ok, fault=outcome.fault, changes=changes)

    async def probe(self) -> list[ProbeRecord]:
        """Calls of the rubric, made once the conversation is over."""
        made = []
        for clause in self._task.rubric:
            if isinstance(clause, ProbeClause):
                talk = await self._talk(clause.call.tool.source)
                ok, text = await talk.call(clause.call.tool.name, clause.call.arguments)
                made.append(ProbeRecord(clause=clause.id, ok=ok, answer=text))
        return made

    async def _talk(self, source: str) -> Talk:
        async with self._opening:  # calls of one message may come side by side
            if source not in self._talks:
                servers = self._places.servers
                if servers is None:
                    raise AbruzziError(
                        "no_servers", f"Task {self._task.id} needs {source}, and no such server runs here."
                    )
                if not self._talks:
                    await self._stack.enter_async_context(servers.slot())
                self._talks[source] = await self._stack.enter_async_context(servers.lease(source, self._files))
            return self._talks[source]

    async def _run(self, arguments: dict[str, Any]) -> Executed:
        if self._places.programs is None:
            raise AbruzziError(
                "no_sandbox", f"Task {self._task.id} runs programs, and there is no sandbox for them here."
            )
        async with self._opening:  # one program after the other: they share a folder
            if self._folder is None:
                self._folder = self._stack.enter_context(self._places.programs.folder(self._files))
            ok, text = await self._places.programs.run(self._folder, arguments)
        return Executed(answer=text, ok=ok, is_real=True)


def _world(ground: WorldGround, tools: dict[str, ToolSpec], seed: int, faults: FaultRates) -> World:
    schedule = Schedule(seed=seed, **faults.model_dump())
    return World(_state_of(ground, tools), seed=ground.seed, rows_each=ground.rows_each, schedule=schedule)


def _state_of(ground: WorldGround, tools: dict[str, ToolSpec]) -> StateSchema:
    for tool in tools.values():
        if tool.source == ground.source and tool.simulation is not None:
            return tool.simulation.state
    raise AbruzziError("bad_data", f"No tool of the agent is of {ground.source!r}, whose world its task plays in.")
