"""Plays a plan where its task takes place, so that what is handed out has been solved once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from abruzzi.contracts.agent import CallRecord, Change, PlannedCall, Task, WorldGround
from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.synthesis.judge import Judgement, Played, checks, judged
from abruzzi_jobs.synthesis.world import World

Catalogue = Mapping[tuple[str, str], ToolSpec]
"""(source, name) → tool."""


def catalogue_of(tools: Sequence[ToolSpec]) -> Catalogue:
    return {(tool.source, tool.name): tool for tool in tools}


def play(
    task: Task, tools: Catalogue, *, plan: Sequence[PlannedCall] | None = None, answer: str | None = None
) -> Played:
    """The task's own plan and answer, or others, in a fresh world without faults."""
    assert isinstance(task.ground, WorldGround)
    state = next(
        tool.simulation.state for (source, _), tool in tools.items() if source == task.ground.source and tool.simulation
    )
    world = World(state, seed=task.ground.seed, rows_each=task.ground.rows_each)
    before = world.snapshot()
    messages: list[dict[str, Any]] = [{"role": "user", "content": task.instruction}]
    calls = []
    for turn, step in enumerate(task.plan if plan is None else plan):
        outcome = world.call(tools[step.tool.source, step.tool.name], step.arguments)
        function = {"name": step.tool.name, "arguments": json.dumps(step.arguments)}
        messages.append(
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": f"call_{turn}", "type": "function", "function": function}],
            }
        )
        messages.append({"role": "tool", "tool_call_id": f"call_{turn}", "content": json.dumps(outcome.answer)})
        calls.append(
            CallRecord(
                turn=turn,
                tool=step.tool.name,
                source=step.tool.source,
                arguments=step.arguments,
                answer=outcome.answer,
                ok=outcome.ok,
                changes=tuple(Change(**change) for change in outcome.changes),
            )
        )
    messages.append({"role": "assistant", "content": task.reference_answer if answer is None else answer})
    after = world.snapshot()
    world.close()
    return Played(messages=messages, calls=calls, before=before, after=after)


def reward(
    task: Task, tools: Catalogue, *, plan: Sequence[PlannedCall] | None = None, answer: str | None = None
) -> Judgement:
    """By the clauses that a program checks."""
    return judged(task, checks(task, play(task, tools, plan=plan, answer=answer)))


def is_sound(task: Task, tools: Catalogue) -> bool:
    """Its plan meets the whole rubric, and doing nothing does not."""
    idle = reward(task, tools, plan=(), answer=f"It is done. {task.instruction}")
    return reward(task, tools).score == 1.0 and idle.score == 0.0
