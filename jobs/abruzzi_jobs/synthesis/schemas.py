"""JSON Schema as tools use it: the draft that a schema names (2020-12 by default), nothing fetched from anywhere, compiled once."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator, SchemaError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

_DEPTH_AT_MOST = 64


def schema_fault(schema: Any, *, of_object: bool = False) -> str:
    """Why it cannot be used as a schema; empty when it can."""
    if not isinstance(schema, dict):
        return "its schema is no object"
    if of_object and schema.get("type") != "object":
        return f"its schema describes {schema.get('type', 'anything')!r}, not an object"
    try:
        text = json.dumps(schema)
        if _depth(schema) > _DEPTH_AT_MOST:
            return f"its schema is nested deeper than {_DEPTH_AT_MOST}"
        _class_of(schema).check_schema(schema)
        _resolves(schema, schema)
        validator(text)
    except SchemaError as error:
        return f"its schema is invalid at {error.json_path}: {error.message[:200]}"
    except (re.error, Unresolvable, ValueError, RecursionError, TypeError) as error:
        return f"its schema is unusable: {str(error)[:200]}"
    return ""


def value_fault(value: Any, schema: dict[str, Any]) -> str:
    """Where `value` breaks the schema first; empty when it fits."""
    try:
        error = next(iter(sorted(validator(json.dumps(schema)).iter_errors(value), key=lambda e: e.json_path)), None)
    except (Unresolvable, re.error, RecursionError) as fault:
        return f"the schema is unusable: {fault}"
    return "" if error is None else f"{error.json_path}: {error.message[:300]}"


@lru_cache(maxsize=8192)
def validator(schema_text: str) -> Validator:
    """An empty registry: a reference to another document is an error, never a download."""
    schema = json.loads(schema_text)
    return _class_of(schema)(schema, registry=Registry())


def _class_of(schema: dict[str, Any]) -> type[Validator]:
    return validator_for(schema, default=Draft202012Validator)


def _depth(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max((_depth(part) for part in parts), default=0)


def _resolves(part: Any, whole: dict[str, Any]) -> None:
    """References stay in the document and lead somewhere."""
    if isinstance(part, dict):
        target = part.get("$ref")
        if isinstance(target, str):
            if not target.startswith("#"):
                raise ValueError(f"it refers to {target[:100]!r}, outside of itself")
            Registry().with_resource("", _resource(whole)).resolver("").lookup(target)
        for value in part.values():
            _resolves(value, whole)
    elif isinstance(part, list):
        for value in part:
            _resolves(value, whole)


def _resource(schema: dict[str, Any]) -> Any:
    return DRAFT202012.create_resource({key: value for key, value in schema.items() if key != "$id"})
