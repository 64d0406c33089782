"""Conversations in a world without any engine: an agent's and a user's turns until one of them is through."""

from __future__ import annotations

import functools
import json

from abruzzi.contracts.agent import CallRecord, Change, Task
from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.synthesis.agents import make_agents
from abruzzi_jobs.synthesis.evolution import evolve
from abruzzi_jobs.synthesis.evolution.tools_of import tools_of
from abruzzi_jobs.synthesis.judge import Played
from abruzzi_jobs.synthesis.tasks import make_tasks
from abruzzi_jobs.synthesis.tasks.proof import Catalogue, catalogue_of
from abruzzi_jobs.synthesis.world import Schedule, World

TURNS_AT_MOST = 60


@functools.cache
def some_tools() -> tuple[ToolSpec, ...]:
    return tuple(tool for application in evolve(0)[::11] for tool in tools_of(application))


@functools.cache
def some_catalogue() -> Catalogue:
    return catalogue_of(some_tools())


@functools.cache
def some_tasks(count: int = 80, seed: int = 0) -> tuple[Task, ...]:
    return tuple(make_tasks(make_agents(some_tools(), 60, seed), some_tools(), count, seed))


def converse(task: Task, agent, user, schedule: Schedule | None = None) -> Played:
    catalogue = some_catalogue()
    state = next(tool.simulation.state for tool in some_tools() if tool.source == task.ground.source)
    world = World(state, seed=task.ground.seed, rows_each=task.ground.rows_each, schedule=schedule)
    before, calls = world.snapshot(), []
    messages = [{"role": "system", "content": "You help."}, {"role": "user", "content": user.first()}]
    for turn in range(TURNS_AT_MOST):
        reply = agent.reply(messages)
        messages.append(reply)
        for call in reply.get("tool_calls", ()):
            name, arguments = call["function"]["name"], json.loads(call["function"]["arguments"])
            outcome = world.call(catalogue[task.ground.source, name], arguments)
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps(outcome.answer)})
            changes = tuple(Change(**change) for change in outcome.changes)
            record = {
                "turn": turn,
                "tool": name,
                "source": task.ground.source,
                "arguments": arguments,
                "answer": outcome.answer,
            }
            calls.append(CallRecord(**record, ok=outcome.ok, fault=outcome.fault, changes=changes))
        if not reply.get("tool_calls"):
            said = user.next(messages)
            if said is None:
                break
            messages.append({"role": "user", "content": said})
    after = world.snapshot()
    world.close()
    return Played(messages=messages, calls=calls, before=before, after=after)
