"""The paper's tables of scores as data (paper_tables.toml). What the paper does not have stays empty."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import Field

from abruzzi.contracts.leaderboard import PaperCell, PaperTableName, PaperTableOut
from abruzzi.contracts.training import Strict

TABLES: tuple[PaperTableName, ...] = ("instruct", "base")


class PaperRow(Strict):
    benchmark: str
    suites: tuple[str, ...] = ()
    """Ours, the first that there is."""
    subtask: str = ""
    samples: int | None = None
    """k of Avg@k, where the paper tells it."""
    shots: int | None = None
    mode: Literal["perplexity", "generation"] | None = None
    values: Mapping[str, float | str]
    """Per cent, by model; with a star, as text, what the paper took from the vendor."""

    @property
    def setting(self) -> str:
        """Of what the paper tells."""
        told = [f"Avg@{self.samples}"] if self.samples else []
        told += [f"{self.shots}-shot"] if self.shots is not None else []
        told += [self.mode] if self.mode else []
        return ", ".join(told)


class PaperTable(Strict):
    title: str
    models: tuple[str, ...]
    row: tuple[PaperRow, ...]
    notes: Mapping[str, str] = Field(default_factory=dict)
    """By suite: in what ours is another measure."""


@cache
def paper_table(name: PaperTableName) -> PaperTable:
    """Of TABLES."""
    read = tomllib.loads(files("abruzzi.contracts").joinpath("paper_tables.toml").read_text(encoding="utf-8"))
    rows = [{key: tuple(v) if isinstance(v, list) else v for key, v in row.items()} for row in read[name]["row"]]
    models = tuple(read[name]["models"])
    return PaperTable.model_validate(
        {"title": read[name]["title"], "models": models, "row": tuple(rows), "notes": read["notes"]}
    )


def paper_table_out(name: PaperTableName) -> PaperTableOut:
    """As the API serves it."""
    table = paper_table(name)
    return PaperTableOut(
        name=name,
        title=table.title,
        models=list(table.models),
        rows=[
            PaperCell(
                benchmark=row.benchmark,
                suites=list(row.suites),
                subtask=row.subtask,
                setting=row.setting,
                values=row.values,
                notes={suite: table.notes[suite] for suite in row.suites if suite in table.notes},
            )
            for row in table.row
        ],
    )
