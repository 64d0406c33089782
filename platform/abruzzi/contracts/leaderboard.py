"""Checkpoints × suites: the newest figure of each, with what it is worth. And the paper's tables, to stand beside."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from abruzzi.contracts.evaluation import Figure
from abruzzi.contracts.resources import Resource

PaperTableName = Literal["instruct", "base"]


class LeaderboardCell(Resource):
    """The newest evaluation of a target by a suite, with tools or without."""

    evaluation_id: str
    suite: str
    """`name@version`."""
    tools: bool
    score: Figure | None
    items: int
    missing: int
    """Items without any score."""
    truncation_rate: float
    contaminated: int | None
    """Items that share words with the training text; None: nobody knows that text."""
    clean_score: Figure | None
    subtasks: Mapping[str, Figure]
    created_at: datetime


class LeaderboardRow(Resource):
    """A target: a checkpoint by its digest, or an endpoint's model."""

    target: str
    target_detail: Mapping[str, str | int | None]
    run_id: str
    """Of the newest evaluation, as the names after it."""
    run_name: str
    recipe_name: str
    evaluated_at: datetime
    cells: list[LeaderboardCell]


class LeaderboardOut(Resource):
    suites: list[str]
    """That somebody of these was asked, by name."""
    rows: list[LeaderboardRow]
    """Newest first."""
    left_out: int
    """Targets beyond the limit."""


class PaperCell(Resource):
    benchmark: str
    suites: list[str]
    """Ours that measure it, without a version; the first that there is counts."""
    subtask: str
    """Of the suite; empty: all of it."""
    setting: str
    """As `Avg@64, 5-shot`; empty where the paper does not tell it."""
    values: Mapping[str, float | str]
    """Per cent by model; with a star, as text, what the paper took from the vendor. A model that is not here was not measured."""
    notes: Mapping[str, str]
    """By suite: in what ours is another measure."""


class PaperTableOut(Resource):
    name: PaperTableName
    title: str
    models: list[str]
    rows: list[PaperCell]
