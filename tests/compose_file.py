"""Reads docker-compose.yml as `docker compose` would: variables interpolated, required ones demanded, YAML anchors merged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
COMPOSE, ENV_EXAMPLE = ROOT / "docker-compose.yml", ROOT / ".env.example"
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z0-9_]+)(?:(?P<operator>:\?|:-)(?P<word>[^}]*))?\}")


class MissingVariable(KeyError):
    """A required variable has no value."""


def load(environment: Mapping[str, str]) -> dict[str, Any]:
    """Raises MissingVariable."""
    return _interpolated(yaml.safe_load(COMPOSE.read_text()), environment)


def variables() -> dict[str, bool]:
    """{variable: whether it is required} of everything that the file reads."""
    found: dict[str, bool] = {}
    for match in _VARIABLE.finditer(COMPOSE.read_text()):
        found[match["name"]] = found.get(match["name"], False) or match["operator"] == ":?"
    return found


def example() -> dict[str, str]:
    """.env.example as it stands."""
    lines = (line for line in ENV_EXAMPLE.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def _interpolated(value: Any, environment: Mapping[str, str]) -> Any:
    match value:
        case str():
            return _VARIABLE.sub(lambda found: _value(found, environment), value)
        case dict():
            return {name: _interpolated(inner, environment) for name, inner in value.items()}
        case list():
            return [_interpolated(inner, environment) for inner in value]
        case _:
            return value


def _value(found: re.Match[str], environment: Mapping[str, str]) -> str:
    value = environment.get(found["name"], "")
    if value:
        return value
    if found["operator"] == ":?":
        raise MissingVariable(found["name"])
    return found["word"] or ""
