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
    """Trained on. Of an attack: the target behaved."""
    REJECT = "reject"
    """Never trained on, whatever the rules said. Of an attack: the target did what it must not do."""


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


class NounOut(Resource):
    """Rows of one sort in an artifact."""

    noun: str
    """Such as `rewrites`; a corpus has `train`, `heldout` and `cloze`."""
    rows: int | None
    """None where nothing in the artifact says it."""
    fates: dict[str, int]
    """Rows kept and rejected, by reason; empty where rows have no fate."""
    teacher: str | None
    """`llm` or `standin`, where a language model or the stand-in took part."""
    described_by: str | None
    """Name of the facts that describe it."""
    size_bytes: int


class DatasetOut(Resource):
    """What there is to look at in an artifact."""

    nouns: list[NounOut]
    facts: list[str]
    """Names that `facts/{noun}` takes."""


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
