"""The paper's tables as Markdown with our column beside the paper's. What one of them does not have stays empty."""

from __future__ import annotations

from collections.abc import Sequence

from abruzzi.contracts.evaluation import Figure, SuiteSummary
from abruzzi.contracts.leaderboard import PaperTableName
from abruzzi.contracts.paper_tables import PaperRow, paper_table


def beside_the_paper(name: PaperTableName, summaries: Sequence[SuiteSummary], *, whole: bool = False) -> list[str]:
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
        told = [str(row.values.get(model, "")) for model in table.models]
        cells.append(f"| {row.benchmark} | {row.setting} | {_told(figure)} | {' | '.join(told)} |")
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
