"""Which rows are wanted, and how much of them. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

Refuse = Callable[[str], NoReturn]
DEEPEST = 100
"""Lists and objects within each other that are shown; answers of the API hold some more."""


@dataclass(frozen=True, slots=True)
class Condition:
    """`path` is dotted; through a list it means any of its items. `value` is text, or what JSON writes for a number or a truth value."""

    path: str
    value: str

    def holds(self, row: Mapping[str, Any]) -> bool:
        return any(_written(found) == self.value for found in _at(row, self.path.split(".")))


@dataclass(frozen=True, slots=True)
class RowFilter:
    fates: frozenset[str] = frozenset()
    """Any of them; none: all."""
    text: str = ""
    """Somewhere in a value, whatever the case of its letters."""
    conditions: tuple[Condition, ...] = ()
    """All of them."""
    ids: frozenset[str] | None = None
    without_ids: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()
    """Of the row's own keys; none: all."""
    cut: int | None = None
    """Longer texts end there, with "…"; the row's id never."""
    veil: Callable[[Any], Any] | None = None
    """What is made of a row before anything else looks at it, so that no condition can ask for what is hidden."""

    def read(self, line: bytes, refuse: Refuse) -> dict[str, Any] | None:
        """The row of a line as it is shown, or None where it is not wanted. `refuse` is told why a line is no row."""
        try:
            raw = line.decode()
            wanted = self.text.casefold()
            # Of a veiled row the raw line answers nothing, not even by how fast the answer comes.
            if self.veil is None and not self._may_want(raw, wanted):
                return None
            row = json.loads(raw)
            if not isinstance(row, dict):
                refuse("no JSON object")
            if self.veil is not None:
                row = self.veil(row)
            if not self._wants(row, wanted):
                return None
        except (ValueError, RecursionError) as error:
            refuse(str(error))
        return {
            shown(key, None): shown(value, None if key == "id" else self.cut)
            for key, value in row.items()
            if not self.fields or key in self.fields
        }

    def _may_want(self, raw: str, wanted: str) -> bool:
        return (not wanted or _may_hold(raw.casefold(), wanted)) and (
            not self.fates or any(_may_hold(raw, fate) for fate in self.fates)
        )

    def _wants(self, row: dict[str, Any], wanted: str) -> bool:
        row_id, fate = (value if isinstance(value := row.get(key), str) else None for key in ("id", "fate"))
        return (
            (not self.fates or fate in self.fates)
            and (self.ids is None or row_id in self.ids)
            and row_id not in self.without_ids
            and all(condition.holds(row) for condition in self.conditions)
            and (not wanted or any(wanted in text.casefold() for text in _texts(row)))
        )


def _may_hold(raw: str, wanted: str) -> bool:
    """Spares most lines the parsing. Escaped characters could be any, and some writers escape slashes."""
    return json.dumps(wanted, ensure_ascii=False)[1:-1] in raw or "\\u" in raw or "\\/" in raw


def _at(value: Any, path: Sequence[str]) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _at(item, path)
    elif not path:
        yield value
    elif isinstance(value, dict) and path[0] in value:
        yield from _at(value[path[0]], path[1:])


def _written(value: Any) -> str | None:
    return value if isinstance(value, str) else None if isinstance(value, dict) else json.dumps(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def shown(value: Any, cut: int | None, depth: int = 0) -> Any:
    """As JSON that everybody reads: no lone surrogates, no infinities; long texts cut, and what lies too deep left out: "…"."""
    if depth >= DEEPEST and isinstance(value, dict | list):
        return "…"
    if isinstance(value, str):
        text = value.encode("utf-8", "replace").decode()
        return text if cut is None or len(text) <= cut else text[:cut] + "…"
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {shown(key, None): shown(item, cut, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [shown(item, cut, depth + 1) for item in value]
    return value
