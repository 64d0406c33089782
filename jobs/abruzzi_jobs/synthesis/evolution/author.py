"""The role `tool_author`: a model writes applications, the platform makes the tools. What it writes is data under a schema, so that a bad answer
costs a try and can do nothing else; every tool is executed once before it is taken."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from pydantic import ValidationError

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.tool import StateSchema, ToolSpec
from abruzzi_jobs.synthesis.evolution.blueprint import Application
from abruzzi_jobs.synthesis.evolution.tools_of import tools_of
from abruzzi_jobs.synthesis.schemas import value_fault
from abruzzi_jobs.synthesis.world import World, sample_call

Author = Callable[[str], Awaitable[str]]
"""Prompt to answer: any chat endpoint's completion of one message."""

_ANSWER_AT_MOST = 200_000
_PROMPT = """Design the state of one software application.
Domain: {domain}
Application: {title}
Answer with one JSON object and nothing else. It must satisfy this JSON Schema:
{schema}
Rules: two to five entities; names in snake_case; a reference field is called <entity>_id and names an entity that comes before; the first field of an
entity is the text that people know it by; an entity with transitions has one field of kind `status` whose choices are the states; integers have minimum
and maximum."""


@dataclass(kw_only=True)
class Authored:
    """`rejected`: why each answer that was not taken was refused, in order."""

    application: Application | None = None
    tools: list[ToolSpec] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)


async def author_application(
    author: Author, *, domain: str, domain_title: str, name: str, title: str, tries: int = 3
) -> Authored:
    """Asks until an answer gives tools that all run, telling the author what was wrong with the last one; at most `tries` times."""
    outcome = Authored()
    asked = _PROMPT.format(domain=domain_title, title=title, schema=json.dumps(StateSchema.model_json_schema()))
    for _ in range(tries):
        fault = outcome.rejected[-1] if outcome.rejected else ""
        answer = await author(f"{asked}\nYour last answer was refused: {fault}" if fault else asked)
        try:
            state = _state_of(answer)
            application = Application(domain=domain, domain_title=domain_title, name=name, title=title, state=state)
            outcome.tools = tools_of(application)
            _try_each(outcome.tools)
        except (ValueError, AbruzziError) as error:
            outcome.tools = []
            outcome.rejected.append(_short(error))
            continue
        outcome.application = application
        return outcome
    return outcome


def _state_of(answer: str) -> StateSchema:
    """The JSON object in it, whatever stands around. Raises ValueError."""
    if len(answer) > _ANSWER_AT_MOST:
        raise ValueError(f"the answer has {len(answer)} characters, more than {_ANSWER_AT_MOST}")
    begin = answer.find("{")
    if begin < 0:
        raise ValueError("the answer has no JSON object")
    try:
        found, _ = json.JSONDecoder().raw_decode(answer[begin:])
    except RecursionError as error:
        raise ValueError("the answer is nested too deep") from error
    state = StateSchema.model_validate(found)
    for entity in state.entities:
        for column in entity.fields:
            if column.kind == "integer" and (column.minimum is None or column.maximum is None):
                raise ValueError(f"{entity.name}.{column.name}: an integer needs minimum and maximum")
            if column.kind == "status" and column.name != "status":
                raise ValueError(f"{entity.name}.{column.name}: the field of kind status is called status")
    return state


def _try_each(tools: list[ToolSpec]) -> None:
    for tool in tools:
        assert tool.simulation is not None
        world = World(tool.simulation.state)
        arguments = sample_call(world, tool)
        if arguments is None:
            raise ValueError(f"{tool.name}: no row allows it")
        outcome = world.call(tool, arguments)
        world.close()
        if not outcome.ok:
            raise ValueError(f"{tool.name}: {outcome.answer['error']['message']}")
        if fault := value_fault(outcome.answer, tool.output_schema or {}):
            raise ValueError(f"{tool.name}: its answer breaks its output schema: {fault}")


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"[:300]
    return str(error)[:300]
