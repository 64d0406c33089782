"""The paper's tables as data, and as Markdown with our column beside the paper's. What one of them does not have stays empty."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from abruzzi.contracts.evaluation import Figure, SuiteSummary
from abruzzi.contracts.training import Strict

TABLES = ("instruct", "base")


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


class PaperTable(Strict):
    title: str
    models: tuple[str, ...]
    row: tuple[PaperRow, ...]
    notes: Mapping[str, str] = Field(default_factory=dict)
    """By suite: in what ours is another measure."""


@cache
def paper_table(name: str) -> PaperTable:
    """Of TABLES."""
    read = tomllib.loads(Path(__file__).with_name("tables.toml").read_text(encoding="utf-8"))
    rows = [{key: tuple(v) if isinstance(v, list) else v for key, v in row.items()} for row in read[name]["row"]]
    models = tuple(read[name]["models"])
    return PaperTable.model_validate(
        {"title": read[name]["title"], "models": models, "row": tuple(rows), "notes": read["notes"]}
    )


def beside_the_paper(name: str, summaries: Sequence[SuiteSummary], *, whole: bool = False) -> list[str]:
    """Lines of Markdown: the rows that we have a figure for (all of them: `whole`). None where there are no such rows."""
    table = paper_table(name)
    ours = {summary.suite.partition("@")[0]: summary for summary in summaries}
    cells, remarks = [], []
    for row in table.row:
        suite = next((suite for suite in row.suites if suite in ours), None)
        if suite is None and not whole:
            continue
        figure = _figure(row, ours[suite]) if suite is not None else None
        if suite in table.notes and figure is not None:
            remarks.append(f"{row.benchmark}: {table.notes[suite]}.")
        setting = [f"Avg@{row.samples}"] if row.samples else []
        setting += [f"{row.shots}-shot"] if row.shots is not None else []
        setting += [row.mode] if row.mode else []
        told = [str(row.values.get(model, "")) for model in table.models]
        cells.append(f"| {row.benchmark} | {', '.join(setting)} | {_told(figure)} | {' | '.join(told)} |")
    if not cells:
        return []
    head = f"| benchmark | the paper's setting | ours | {' | '.join(table.models)} |"
    lines = ["", f"## {table.title}, beside ours", "", head, f"|---|---|---:|{'---:|' * len(table.models)}", *cells]
    lines += ["", "Per cent; * as the paper took it from the vendor. Ours with its 95 % interval over items.", *remarks]
    return lines


def _figure(row: PaperRow, summary: SuiteSummary) -> Figure | None:
    return summary.subtasks.get(row.subtask) if row.subtask else summary.score


def _told(figure: Figure | None) -> str:
    if figure is None:
        return ""
    interval = (
        "" if figure.low is None or figure.high is None else f" [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"
    )
    return f"{100 * figure.value:.1f}{interval} (n = {figure.items})"
