"""Calls that a tool accepts, drawn from a seed: for tests, for tasks that must be solvable, for examples."""

from __future__ import annotations

import itertools
import random
from typing import Any

from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.synthesis.world.tables import sample_value
from abruzzi_jobs.synthesis.world.world import World

_TRIES = 400


def sample_call(world: World, tool: ToolSpec, seed: int = 0) -> dict[str, Any] | None:
    """Arguments whose preconditions hold in the world as it is; None where no row allows the call."""
    assert tool.simulation is not None
    draw = random.Random(f"call/{seed}/{tool.source}/{tool.name}")
    operation = tool.simulation.operation
    entity = world.tables.state.entity(operation.entity)
    properties = tool.input_schema["properties"]
    fields = {field.name: field for field in entity.fields}
    keys = {name: _table_of(name, tool) for name in properties}
    keys = {name: table for name, table in keys.items() if table is not None}
    given: dict[str, Any] = {}
    for name in properties:
        if name in keys:
            continue
        if name in ("by", "amount"):
            given[name] = 1
        elif name in fields and (name in tool.input_schema["required"] or draw.random() < 0.7):
            given[name] = sample_value(fields[name], draw, world.rows_each)
    candidates = []
    for table in keys.values():
        numbers = [row[f"{table}_id"] for row in world.tables.rows(table)]
        draw.shuffle(numbers)
        candidates.append(numbers)
    for chosen in itertools.islice(itertools.product(*candidates), _TRIES):
        arguments = {**given, **dict(zip(keys, chosen, strict=True))}
        if world.unmet(tool, arguments) is None:
            return arguments
    return None


def _table_of(argument: str, tool: ToolSpec) -> str | None:
    """The entity whose id the argument is: preconditions say that the row exists."""
    assert tool.simulation is not None
    for condition in tool.simulation.preconditions:
        if condition.relation == "exists" and condition.left.argument == argument:
            return condition.left.entity
    return None
