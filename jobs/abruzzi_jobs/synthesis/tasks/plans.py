"""Plans that work: calls drawn and made one after the other in a world, each with an effect that no later one takes back."""

from __future__ import annotations

import random
from typing import Any

from abruzzi.contracts.tool import ToolSpec
from abruzzi_jobs.synthesis.tasks.steps import READS, Scene, Step, Teller
from abruzzi_jobs.synthesis.world import Outcome, World, sample_call

_TRIES_A_STEP = 12
_WEIGHTS = {
    "create": 3,
    "update": 3,
    "move": 3,
    "adjust": 2,
    "transfer": 2,
    "assign": 2,
    "delete": 1,
    "get": 3,
    "find": 2,
    "related": 2,
    "count": 1,
    "total": 1,
}
_AGGREGATES = ("find", "related", "count", "total")
Cell = tuple[str, int, str]


def draw_plan(scene: Scene, length: int, *, acts: bool) -> list[Step] | None:
    """`acts`: something has to change, else nothing may. The scene's world is left as the plan leaves it. None where the tools and rows do not allow so many steps."""
    steps: list[Step] = []
    touched: set[Cell] = set()
    for number in range(length):
        last = number == length - 1
        for _ in range(_TRIES_A_STEP):
            tool = _choose(scene, may_act=acts, may_read=not acts or number > 0, may_sum_up=last)
            step = None if tool is None else _take(scene, tool, touched)
            if step is not None:
                steps.append(step)
                break
        else:
            return None
    return steps


def _choose(scene: Scene, *, may_act: bool, may_read: bool, may_sum_up: bool) -> ToolSpec | None:
    """Aggregates come last: what they give depends on all that is done before."""
    fit = [
        tool
        for tool in scene.tools.values()
        if (may_read if _kind(tool) in READS else may_act) and (may_sum_up or _kind(tool) not in _AGGREGATES)
    ]
    return scene.draw.choices(fit, [_WEIGHTS[_kind(tool)] for tool in fit])[0] if fit else None


def _kind(tool: ToolSpec) -> str:
    assert tool.simulation is not None
    return tool.simulation.operation.kind


def _take(scene: Scene, tool: ToolSpec, touched: set[Cell]) -> Step | None:
    """Makes the call and keeps it where it has an effect, or an answer, that stands by itself; otherwise the world is as before."""
    arguments = draw_call(scene.world, tool, scene.draw)
    if arguments is None:
        return None
    finish = Teller(scene, tool, arguments).prepare()
    scene.world.tables.begin()
    outcome = scene.world.call(tool, arguments)
    step, cells = finish(outcome.answer) if outcome.ok else None, _cells(scene, tool, arguments, outcome)
    if step is None or cells & touched or (_kind(tool) not in READS and not outcome.changes):
        scene.world.tables.undo()
        return None
    scene.world.tables.keep()
    touched |= cells
    if _kind(tool) == "create":
        assert tool.simulation is not None
        entity = tool.simulation.operation.entity
        scene.made.setdefault(entity, []).append(outcome.answer[f"{entity}_id"])
    return step


def _cells(scene: Scene, tool: ToolSpec, arguments: dict[str, Any], outcome: Outcome) -> set[Cell]:
    """What is read or written of rows that were there before the plan. Rows of the plan's own may be worked on in several steps."""
    if _kind(tool) == "get" and outcome.ok:
        assert tool.simulation is not None
        entity = tool.simulation.operation.entity
        return {(entity, arguments[f"{entity}_id"], name) for name in outcome.answer}
    cells = set()
    for change in outcome.changes:
        if change["id"] not in scene.made.get(change["entity"], ()):
            row = {**(change["before"] or {}), **(change["after"] or {})}
            cells |= {(change["entity"], change["id"], name) for name in row}
    return cells


def draw_call(world: World, tool: ToolSpec, draw: random.Random) -> dict[str, Any] | None:
    """A call that works, with amounts as large as the rows allow now and then."""
    arguments = sample_call(world, tool, draw.getrandbits(32))
    if arguments is None:
        return None
    for name in ("by", "amount"):
        if name in arguments:
            most = tool.input_schema["properties"][name]["maximum"]
            while most > 1:
                tried = {**arguments, name: draw.randint(1, most)}
                if world.unmet(tool, tried) is None:
                    return tried
                most //= 2
    arguments.pop("limit", None)
    part = next((name for name in arguments if name.endswith("_contains")), None)
    if part is not None:
        del arguments[part]
    return arguments
