"""Keyset cursors: opaque to the caller, position of the last item seen."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, TypeVar

from fastapi import Query
from pydantic import BaseModel

from abruzzi.contracts.errors import AbruzziError
from abruzzi.runs.listing import Position, Sort, read_value, write_value

T = TypeVar("T", bound=BaseModel)
Limit = Annotated[int, Query(ge=1, le=500, description="Items at most")]
Cursor = Annotated[str | None, Query(max_length=300, description="`next_cursor` of the page before")]


def encode(*values: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def decode(cursor: str | None, count: int) -> list[str] | None:
    """Raises AbruzziError `bad_cursor`."""
    if cursor is None:
        return None
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        values = None
    if not isinstance(values, list) or len(values) != count or not all(isinstance(v, str) for v in values):
        raise _bad_cursor()
    return values


def decode_moment(cursor: str | None) -> tuple[datetime, str] | None:
    """Cursor over (moment, id)."""
    values = decode(cursor, 2)
    if values is None:
        return None
    try:
        moment = datetime.fromisoformat(values[0])
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise _bad_cursor()
    return moment, values[1]


def decode_number(cursor: str | None) -> int | None:
    numbers = decode_numbers(cursor, 1)
    return None if numbers is None else numbers[0]


def decode_numbers(cursor: str | None, count: int) -> list[int] | None:
    values = decode(cursor, count)
    if values is None:
        return None
    if not all(value.isascii() and value.isdigit() and len(value) <= 18 for value in values):
        raise _bad_cursor()
    return [int(value) for value in values]


def encode_position(position: Position, sort: Sort, order: str) -> str:
    return encode(f"{sort} {order}", write_value(position.value), position.run_id, position.at.isoformat())


def decode_position(cursor: str | None, sort: Sort, order: str) -> Position | None:
    """Cursor of a sorted list of runs; one of another order is refused."""
    values = decode(cursor, 4)
    if values is None:
        return None
    said, value, run_id, at = values
    try:
        position = Position(read_value(sort, value), run_id, datetime.fromisoformat(at))
    except ValueError:
        position = None
    if position is None or said != f"{sort} {order}" or position.at.tzinfo is None or "\x00" in value + run_id:
        raise _bad_cursor()
    return position


def page(items: Sequence[T], limit: int, position: Callable[[T], tuple[str, ...]]) -> dict[str, object]:
    """`items` were asked for with limit + 1: one more than fits means that there is a next page."""
    shown = list(items[:limit])
    return {"items": shown, "next_cursor": encode(*position(shown[-1])) if len(items) > limit else None}


def _bad_cursor() -> AbruzziError:
    hint = "Use `next_cursor` of the page before, in the same order, or leave it out."
    return AbruzziError("bad_cursor", "The cursor is none of ours.", status=422, hint=hint)
