"""Plays a row again, its messages given: its calls are made anew on a fresh ground, and everything that follows from them is compared.

Nobody is asked. What a tool answers by the clock or by chance is made again and not compared; the replay says how many those were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from abruzzi.contracts.agent import CallRecord, RealGround, Task, Verdict
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.synthesis import FaultRates
from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.chat.request import ToolCall
from abruzzi_jobs.synthesis.judge import checks
from abruzzi_jobs.synthesis.mcp import ServerFault
from abruzzi_jobs.synthesis.trajectories.engine import Machine
from abruzzi_jobs.synthesis.trajectories.episode import ENDED_WELL, Episode
from abruzzi_jobs.synthesis.trajectories.grounds import Executed, Ground
from abruzzi_jobs.synthesis.trajectories.play import execute_all, told
from abruzzi_jobs.synthesis.trajectories.toolbox import Slip, Toolbox
from abruzzi_jobs.synthesis.world import BrokenTool

Row = Mapping[str, Any]
IsDeterministic = Callable[[str, str], bool]
"""(source, tool) of a real tool."""


@dataclass(kw_only=True)
class Replayed:
    """`differs`: where the row and the replay part, in words. `skipped`: why there was none."""

    id: str
    calls: int = 0
    not_compared: int = 0
    differs: list[str] = field(default_factory=list)
    skipped: str = ""

    @property
    def same(self) -> bool:
        return not self.differs and not self.skipped


async def replay(
    row: Row, tools: Mapping[tuple[str, str], ToolSpec], machine: Machine, is_deterministic: IsDeterministic
) -> Replayed:
    """`tools`: of the catalogue, by source and name. Raises AbruzziError bad_data for a row whose tools are not in it."""
    outcome = Replayed(id=row["id"])
    task = Task.model_validate(row["task"])
    is_real = isinstance(task.ground, RealGround) or any(call["is_real"] for call in row["calls"])
    if is_real and machine.servers is None:
        outcome.skipped = "its tools are real, and none run here"
        return outcome
    box = _toolbox(row, tools)
    ground = Ground(task, box.tools, seed=row["seed"], faults=FaultRates.model_validate(row["faults"]), places=machine)
    episode = Episode(messages=list(row["messages"]), ended_by=row["ended_by"])
    async with ground:
        episode.before, episode.digest_before = ground.state()
        fault = await _calls(row, box, ground, episode, outcome, is_deterministic)
        if fault is None and (episode.ended_by in ENDED_WELL or _by_a_server(row)):
            fault = await _probe(ground, episode)
        episode.after, episode.digest_after = ground.state()
    if fault != (row["ended_by"] if row["ended_by"] == "broken_tool" or _by_a_server(row) else None):
        outcome.differs.append(f"it ended by {row['ended_by']!r}, and now by {fault!r}")
    _compare(row, episode, outcome, checks(task, episode))
    return outcome


async def _calls(
    row: Row, box: Toolbox, ground: Ground, episode: Episode, outcome: Replayed, is_deterministic: IsDeterministic
) -> str | None:
    """Makes them; the word for what broke the conversation off, where something does."""
    recorded = [CallRecord.model_validate(call) for call in row["calls"]]
    given = {m["tool_call_id"]: m["content"] for m in row["messages"] if m["role"] == "tool"}
    for message in row["messages"]:
        asked = [
            ToolCall(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", ())
        ]
        if not asked:
            continue
        records = recorded[len(episode.calls) : len(episode.calls) + len(asked)]
        read = [
            _as_recorded(box, call, record) for call, record in zip(asked, records or [None] * len(asked), strict=True)
        ]
        try:
            done = await execute_all(ground, read)
        except ServerFault as fault:
            return fault.code
        except BrokenTool:
            return "broken_tool"
        if not records:
            return None  # the conversation was broken off here, and no longer is
        for call, what, record, executed in zip(asked, read, records, done, strict=True):
            outcome.calls += 1
            free = executed.is_real and not is_deterministic(record.source, record.tool)
            outcome.not_compared += free
            again = record if free else _record(record, what, executed)
            if again != record or (not free and told(executed.answer) != given.get(call.id)):
                outcome.differs.append(
                    f"{call.id} {record.tool}: {told(record.answer)[:200]!r} is now {told(executed.answer)[:200]!r}"
                )
            episode.calls.append(again)
    return None


async def _probe(ground: Ground, episode: Episode) -> str | None:
    try:
        episode.probes = await ground.probe()
    except ServerFault as fault:
        return fault.code
    return None


def _by_a_server(row: Row) -> bool:
    return row["ended_by"].startswith("server_")


def _as_recorded(box: Toolbox, call: ToolCall, record: CallRecord | None) -> tuple[ToolSpec, dict[str, Any]] | Slip:
    """Bounds of the stage (calls at a time) are in the row's answer alone."""
    error = record.answer.get("error", {}) if record is not None and isinstance(record.answer, dict) else {}
    if record is not None and not record.source and error.get("code") == "too_many_calls":
        return Slip("too_many_calls", error["message"])
    return box.read(call)


def _record(record: CallRecord, what: tuple[ToolSpec, dict[str, Any]] | Slip, executed: Executed) -> CallRecord:
    is_slip = isinstance(what, Slip)
    return CallRecord(
        turn=record.turn,
        tool=record.tool,
        source="" if is_slip else what[0].source,
        arguments={} if is_slip else what[1],
        answer=executed.answer,
        ok=executed.ok,
        fault=executed.fault,
        changes=executed.changes,
        is_real=executed.is_real,
    )


def _compare(row: Row, episode: Episode, outcome: Replayed, verdicts: list[Verdict]) -> None:
    world = row["world"] or {}
    for name in ("before", "after", "digest_before", "digest_after"):
        if world.get(name) != getattr(episode, name):
            outcome.differs.append(f"world.{name} is another one")
    if outcome.not_compared:
        return  # what the rubric sees of such answers may differ
    was = [Verdict.model_validate(verdict) for verdict in row["verdicts"]]
    ours = {verdict.clause: verdict for verdict in was if verdict.by != "judge"}
    for verdict in verdicts:
        if ours.pop(verdict.clause, None) != verdict:
            outcome.differs.append(f"clause {verdict.clause}: now {verdict.passed}: {verdict.why}")
    outcome.differs += [f"clause {clause}: no verdict on it now" for clause in ours]


def _toolbox(row: Row, tools: Mapping[tuple[str, str], ToolSpec]) -> Toolbox:
    names = {(tool["source"], tool["name"]) for tool in row["agent"]["tools"]}
    missing = [f"{name} of {source}" for source, name in names if (source, name) not in tools]
    if missing:
        raise AbruzziError(
            "bad_data",
            f"{row['id']}: {missing[0]} is not in the catalogue.",
            hint="Give the catalogue that it was made with.",
        )
    own = [tools[tool["source"], tool["name"]] for tool in row["agent"]["tools"]]
    known = {tool["name"] for tool in row["agent"]["tools"]}
    extra = [t for t in tools.values() if t.source.startswith("sandbox:") and t.name not in known and _has(row, t.name)]
    return Toolbox([*own, *extra])


def _has(row: Row, name: str) -> bool:
    return any(tool["name"] == name for tool in row["tools"])
