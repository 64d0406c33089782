"""How people say the things of a world: fields, values, rows."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import Any

from abruzzi.contracts.agent import Fact
from abruzzi.contracts.tool import EntitySchema, FieldSchema, ToolSpec
from abruzzi_jobs.synthesis.evolution.tools_of import words
from abruzzi_jobs.synthesis.world import Snapshot, World


@dataclass(frozen=True, kw_only=True)
class Named:
    """`phrase` stands for a row; `look_up` are the arguments with which its entity's `find` gives this row alone (None where the phrase has its id)."""

    phrase: str
    facts: tuple[Fact, ...] = ()
    look_up: dict[str, Any] | None = None


def several(name: str) -> str:
    """Of more than one."""
    one = words(name)
    if one.endswith("y") and one[-2:-1] not in "aeiou":
        return f"{one[:-1]}ies"
    return f"{one}es" if one.endswith(("s", "x", "ch", "sh")) else f"{one}s"


def label(field: FieldSchema) -> str:
    if field.kind == "reference":
        return words(field.entity or "")
    return words(field.name.removesuffix("_cents"))


def said(field: FieldSchema, value: Any) -> str:
    """A value of the field as people say it; `bare` of it occurs in it."""
    if field.kind == "text":
        return f'"{value}"'
    return f"{value} cents" if field.name.endswith("_cents") else bare(field, value)


def bare(field: FieldSchema, value: Any) -> str:
    if field.kind == "boolean":
        return "yes" if value else "no"
    return words(value) if field.kind in ("choice", "status") else str(value)


def fact(entity: EntitySchema, field: FieldSchema, value: Any) -> Fact:
    text = f"The {label(field)} of the {words(entity.name)} is {said(field, value)}."
    return Fact(name=f"{entity.name}_{field.name}", text=text, value=bare(field, value))


def by_number(entity: EntitySchema, number: int) -> Named:
    one = words(entity.name)
    told = Fact(name=f"{entity.name}_id_{number}", text=f"It is {one} {number}.", value=str(number))
    return Named(phrase=f"{one} {number}", facts=(told,))


def by_description(
    world: World, first: Snapshot, entity: EntitySchema, number: int, find: ToolSpec | None, draw: random.Random
) -> Named | None:
    """By what a search finds it with, at the beginning and now; None where nothing short tells it apart."""
    row = world.tables.row(entity.name, number)
    if find is None or row is None:
        return None
    known = entity.fields[0]
    fields = [
        f
        for f in entity.fields
        if f.kind in ("choice", "status", "boolean") and f.name in find.input_schema["properties"]
    ]
    draw.shuffle(fields)
    heads = [known] if known.kind == "text" and f"{known.name}_contains" in find.input_schema["properties"] else []
    now, then = world.tables.rows(entity.name), first[entity.name]
    for size in range(0 if heads else 1, 3):
        for chosen in itertools.combinations(fields, size):
            parts = [*heads, *chosen]
            if all(_alone(rows, entity.key, number, row, parts) for rows in (now, then)):
                told = " and ".join(f"whose {label(f)} is {said(f, row[f.name])}" for f in parts)
                arguments = {f.name if f in chosen else f"{f.name}_contains": row[f.name] for f in parts}
                facts = tuple(fact(entity, f, row[f.name]) for f in parts)
                return Named(phrase=f"the {words(entity.name)} {told}", facts=facts, look_up=arguments)
    return None


def _alone(rows: list[dict[str, Any]], key: str, number: int, like: dict[str, Any], parts: list[FieldSchema]) -> bool:
    found = [row[key] for row in rows if all(_fits(row[part.name], like[part.name], part) for part in parts)]
    return found == [number]


def _fits(value: Any, wanted: Any, part: FieldSchema) -> bool:
    return wanted.lower() in value.lower() if part.kind == "text" else value == wanted
