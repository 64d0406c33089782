"""Rows of artifacts (documents, rewrites, tools, trajectories, conversations) as people look at them, and what people say of them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints

from abruzzi.contracts.resources import Resource

RowId = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Verdict(StrEnum):
    ACCEPT = "accept"
    """Trained on."""
    REJECT = "reject"
    """Never trained on, whatever the rules said."""


class ReviewIn(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    row_id: RowId
    """The row's `id` in its artifact."""
    verdict: Verdict
    note: Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)] = ""


class ReviewOut(Resource):
    row_id: str
    verdict: Verdict
    note: str
    by: str
    at: datetime


class ReviewPage(Resource):
    """Ordered by `row_id`."""

    items: list[ReviewOut]
    next_cursor: str | None
    accepted: int
    """Of the whole artifact."""
    rejected: int


class RowOut(Resource):
    position: str
    """Cursor of the row itself: with it as `cursor` and a `limit` of 1 it is read again."""
    row: dict[str, Any]
    review: ReviewOut | None


class RowPage(Resource):
    items: list[RowOut]
    """May be empty while there is a next cursor: one request looks at some megabytes only."""
    next_cursor: str | None
    scanned: int
    """Rows looked at, found or not."""
