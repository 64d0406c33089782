"""Tools as they are declared to the model: TypeScript (a namespace, a function type each, comments as descriptions), or JSON (paper appendix B). Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from abruzzi_jobs.sft.conversation import compact

Style = Literal["typescript", "json"]
_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_PLAIN = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean", "null": "null"}
_TOLD = (
    "format", "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength",
    "minItems", "maxItems", "uniqueItems", "default",
)  # fmt: skip
"""What TypeScript's types cannot say is said in the comment."""
_DEPTH = 16
_TURNS = 2
"""How often a type is written out within itself; its third turn is `any`."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Of a part of a schema."""

    whole: Mapping[str, Any]
    depth: int = 0
    followed: tuple[str, ...] = ()
    """References on the way here."""

    def inside(self) -> _Place:
        return replace(self, depth=self.depth + 1)

    def behind(self, reference: str) -> _Place:
        return replace(self.inside(), followed=(*self.followed, reference))


def declared(tools: Iterable[Mapping[str, Any]], style: Style) -> str:
    """The text of the message `tool_declare`."""
    if style == "json":
        return compact([{"type": "function", "function": dict(tool)} for tool in tools])
    lines = ["namespace functions {"]
    for tool in tools:
        lines += _comment(tool["description"])
        lines.append(
            f"type {_key(tool['name'])} = (_: {_type(tool['parameters'], _Place(tool['parameters']))}) => any;"
        )
    return "\n".join([*lines, "}"])


def _type(schema: Any, place: _Place) -> str:
    """Of a JSON Schema, local references followed. What has no counterpart is `any`."""
    if not isinstance(schema, dict) or place.depth > _DEPTH:
        return "any"
    if "$ref" in schema:
        reference = str(schema["$ref"])
        if place.followed.count(reference) >= _TURNS:
            return "any"
        return _type(_resolved(reference, place.whole), place.behind(reference))
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    if isinstance(schema.get("enum"), list):
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"]) or "any"
    for several in ("anyOf", "oneOf"):
        if isinstance(schema.get(several), list):
            return " | ".join(dict.fromkeys(_type(part, place.inside()) for part in schema[several])) or "any"
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join(dict.fromkeys(_type({**schema, "type": one}, place.inside()) for one in kind)) or "any"
    if kind == "array":
        of = _type(schema.get("items"), place.inside())
        return f"({of})[]" if " | " in of else f"{of}[]"
    if kind == "object" or "properties" in schema:
        return _object(schema, place)
    return _PLAIN.get(str(kind), "any")


def _object(schema: Mapping[str, Any], place: _Place) -> str:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not properties:
        values = schema.get("additionalProperties")
        return f"{{[key: string]: {_type(values, place.inside())}}}" if isinstance(values, dict) else "{}"
    required = schema.get("required")
    required = required if isinstance(required, list) else []
    lines = ["{"]
    for name, part in properties.items():
        lines += _comment(_told(part, place.whole))
        lines.append(f"{_key(name)}{'' if name in required else '?'}: {_type(part, place.inside())},")
    return "\n".join([*lines, "}"])


def _told(schema: Any, whole: Mapping[str, Any]) -> str:
    if not isinstance(schema, dict):
        return ""
    if "$ref" in schema:
        resolved = _resolved(str(schema["$ref"]), whole)
        schema = {**resolved, **schema} if isinstance(resolved, dict) else schema
    limits = ["integer"] if schema.get("type") == "integer" else []
    limits += [f"{key}: {json.dumps(schema[key], ensure_ascii=False)}" for key in _TOLD if key in schema]
    return " ".join(
        part for part in (str(schema.get("description") or ""), f"({', '.join(limits)})" if limits else "") if part
    )


def _resolved(reference: str, whole: Mapping[str, Any]) -> Any:
    """Of `#/$defs/name`; None where it leads nowhere."""
    found: Any = whole
    for part in reference.removeprefix("#").split("/")[1:]:
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found if reference != "#" else None


def _comment(text: str) -> list[str]:
    return [f"// {line}".rstrip() for line in text.splitlines() if line.strip()]


def _key(name: str) -> str:
    return name if _IDENTIFIER.fullmatch(name) else json.dumps(name, ensure_ascii=False)
