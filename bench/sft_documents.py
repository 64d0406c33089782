"""Plain text to pre-train on before any conversation: manuals of tools of the training applications, and made-up functions with their declarations as JSON
and calls of them, in words and as JSON.

Made-up names and values are syllables, so that the only way to predict them is to copy. No marker, no call id, no held-out application occurs in it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from sft_tasks import applications, declaration, made_up_name

from abruzzi_jobs.sft.conversation import compact

_VERBS = (
    "create",
    "get",
    "find",
    "update",
    "delete",
    "assign",
    "raise",
    "lower",
    "count",
    "move",
    "open",
    "close",
    "approve",
)
_KINDS = ("integer", "string", "boolean", "choice", "date")


def manuals(most_bytes: int) -> Iterator[str]:
    """One a tool."""
    for tools in applications(held_out=False, most_bytes=most_bytes):
        for tool in tools:
            yield f"{tool.name}\n{tool.description}\n{compact([declaration(tool)])}"


def documents(seed: int) -> Iterator[str]:
    """Without end, of made-up functions. Half of them declare a second one, which is not called."""
    draw = random.Random(f"sft-documents/{seed}")
    while True:
        name, fields = _function(draw)
        values = {key: _value(schema, draw) for key, schema in fields.items()}
        given = [key for key in fields if draw.random() < 0.8] or list(fields)
        stated = draw.sample(given, len(given))
        declared = [_declared(name, fields, given)]
        if draw.random() < 0.5:
            other, more = _function(draw)
            declared.insert(draw.randint(0, 1), _declared(other, dict(list(more.items())[:2]), list(more)[:1]))
        told = "; ".join(
            f"{key}={values[key] if isinstance(values[key], str) else compact(values[key])}" for key in stated
        )
        yield f"{compact(declared)}\n{_said(name)} {told}.\n{name}\n{compact({key: values[key] for key in given})}"


def _function(draw: random.Random) -> tuple[str, dict[str, dict[str, Any]]]:
    noun = "_".join(made_up_name(draw).lower().split())
    return f"{draw.choice(_VERBS)}_{noun}", _fields(noun, draw)


def _declared(name: str, fields: dict[str, dict[str, Any]], required: list[str]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": fields, "required": required}
    return {"name": name, "description": _said(name), "parameters": parameters}


def _said(name: str) -> str:
    return f"{name.replace('_', ' ').capitalize()}."


def _fields(noun: str, draw: random.Random) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {f"{noun}_id": {"type": "integer"}}
    for _ in range(draw.randint(0, 4)):
        key = "_".join(made_up_name(draw).lower().split())
        kind = draw.choice(_KINDS)
        if kind == "choice":
            found[key] = {
                "type": "string",
                "enum": [made_up_name(draw).lower().split()[0] for _ in range(draw.randint(2, 4))],
            }
        else:
            found[key] = {"type": "string" if kind == "date" else kind}
        if kind == "date":
            found[key]["format"] = "date"
    return found


def _value(schema: dict[str, Any], draw: random.Random) -> Any:
    if "enum" in schema:
        return draw.choice(schema["enum"])
    if schema["type"] == "integer":
        return draw.choice((draw.randint(1, 9), draw.randint(1, 99), draw.randint(1, 99_999)))
    if schema["type"] == "boolean":
        return draw.random() < 0.5
    if "format" in schema:
        return f"2026-{draw.randint(1, 12):02d}-{draw.randint(1, 28):02d}"
    return made_up_name(draw)
