"""Wishes that cannot be met: a precondition does not hold, and nothing that the application offers can make it hold. The right thing is to say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from abruzzi.contracts.agent import Fact, PlannedCall
from abruzzi.contracts.tool import EntitySchema, ToolSpec
from abruzzi_jobs.synthesis.evolution.tools_of import words
from abruzzi_jobs.synthesis.tasks.naming import by_number, label, said
from abruzzi_jobs.synthesis.tasks.steps import Scene, done_to, planned, verb_of

_UNKNOWN = 40
"""How far beyond the last row an id is that nobody has."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    wish: str
    facts: tuple[Fact, ...]
    plan: tuple[PlannedCall, ...]
    why: str


def draw_refusal(scene: Scene) -> Refusal | None:
    """One wish that the world refuses, from the tools that can be refused; None where no tool can be."""
    tools = list(scene.tools.values())
    scene.draw.shuffle(tools)
    for tool in tools:
        found = _refused(scene, tool)
        if found is not None:
            return found
    return None


def _refused(scene: Scene, tool: ToolSpec) -> Refusal | None:
    assert tool.simulation is not None
    operation = tool.simulation.operation
    entity = tool.simulation.state.entity(operation.entity)
    rows = scene.world.tables.rows(entity.name)
    if not rows:
        return None
    if operation.kind == "adjust":
        return _beyond(scene, tool, entity, scene.draw.choice(rows))
    if operation.kind == "move":
        return _no_way(scene, tool, entity, rows)
    if operation.kind in ("delete", "get"):
        return _nobody(scene, tool, entity, rows, "delete {}" if operation.kind == "delete" else "read {} to me")
    return None


def _nobody(scene: Scene, tool: ToolSpec, entity: EntitySchema, rows: list[dict[str, Any]], wish: str) -> Refusal:
    number = max(row[entity.key] for row in rows) + scene.draw.randint(5, _UNKNOWN)
    named = by_number(entity, number)
    return Refusal(
        wish=wish.format(named.phrase),
        facts=named.facts,
        plan=(planned(tool, {entity.key: number}),),
        why=f"there is no {words(entity.name)} {number}",
    )


def _beyond(scene: Scene, tool: ToolSpec, entity: EntitySchema, row: dict[str, Any]) -> Refusal | None:
    assert tool.simulation is not None
    operation = tool.simulation.operation
    column = entity.field(operation.field or "")
    raised = operation.verb == "raise"
    bound = column.maximum if raised else column.minimum
    if bound is None:
        return None
    room = bound - row[column.name] if raised else row[column.name] - bound
    most = tool.input_schema["properties"]["by"]["maximum"]
    if room >= most:
        return None
    amount = scene.draw.randint(room + 1, most)
    named = by_number(entity, row[entity.key])
    arguments = {entity.key: row[entity.key], "by": amount}
    way = "above" if raised else "below"
    return Refusal(
        wish=f"{operation.verb} the {label(column)} of {named.phrase} by {said(column, amount)}, by all of it or not at all",
        facts=(*named.facts, Fact(name="by", text=f"By {amount}.", value=str(amount))),
        plan=(planned(tool, arguments),),
        why=f"the {label(column)} would go {way} {said(column, bound)}",
    )


def _no_way(scene: Scene, tool: ToolSpec, entity: EntitySchema, rows: list[dict[str, Any]]) -> Refusal | None:
    """A status from which no transition leads where the verb begins."""
    assert tool.simulation is not None
    move = next(m for m in entity.transitions if m.verb == tool.simulation.operation.verb)
    stuck = [row for row in rows if not _reachable(entity, row["status"]) & set(move.origins)]
    if not stuck:
        return None
    row = scene.draw.choice(stuck)
    named = by_number(entity, row[entity.key])
    return Refusal(
        wish=done_to(verb_of(move.verb, entity), named.phrase),
        facts=named.facts,
        plan=(planned(tool, {entity.key: row[entity.key]}),),
        why=f"it is {words(row['status'])}, and it would have to be {' or '.join(map(words, move.origins))}",
    )


def _reachable(entity: EntitySchema, status: str) -> set[str]:
    found, fresh = {status}, {status}
    while fresh:
        fresh = {move.target for move in entity.transitions if fresh & set(move.origins)} - found
        found |= fresh
    return found
