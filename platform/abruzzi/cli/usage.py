"""`abruzzi usage`: GPU-hours and where they went."""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from abruzzi.cli.session import OUTPUT, JsonOption, client, print_json
from abruzzi.contracts.usage import HELD, By, Hours, Spent, UsageOut, UsageRow

WORDS = {
    Spent.TRAIN: "work",
    Spent.CHECKPOINT: "saving",
    Spent.START_UP: "starting",
    Spent.HANG: "hang",
    Spent.LOST_WORK: "lost work",
    Spent.IDLE: "idle",
    Spent.QUEUE: "queue",
}


def _day(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no day such as 2026-11-26") from None


def usage(
    by: Annotated[By, typer.Option(help="What a row is of.")] = By.PROJECT,
    from_day: Annotated[
        date | None,
        typer.Option("--from", metavar="DAY", parser=_day, help="First day, UTC; by default 30 days in all."),
    ] = None,
    to_day: Annotated[
        date | None,
        typer.Option("--to", metavar="DAY", parser=_day, help="Last day, UTC, inclusive; by default today."),
    ] = None,
    pool: Annotated[str | None, typer.Option("--pool", help="Only what was held in a pool.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, every cause in GPU-hours and CPU-hours.")] = False,
    as_json: JsonOption = False,
) -> None:
    """GPU-hours held and where they went: work, saving, starting, hang, lost work, idle. Queueing holds nothing and stands beside."""
    with client() as connection:
        if as_csv:
            sys.stdout.write(connection.usage.csv(by=by, from_day=from_day, to_day=to_day, pool=pool))
            return
        found = connection.usage.get(by=by, from_day=from_day, to_day=to_day, pool=pool)
    print_json(found) if as_json else _print(found)


def _print(found: UsageOut) -> None:
    has_gpus = bool(found.total.held.gpu or found.total.queue.gpu)
    unit = "GPU-hours" if has_gpus else "CPU-hours"
    OUTPUT.print(f"[bold]{unit}[/] by {found.by.value}, {found.from_day} to {found.to_day} (UTC)")
    if not found.items:
        OUTPUT.print("Nothing was held and nothing waited.")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(found.by.value)
    for column in ("held", *(WORDS[cause] for cause in HELD), "work %", "queue (beside)"):
        table.add_column(column, justify="right")
    for row in found.items:
        table.add_row(*_cells(row, has_gpus))
    if len(found.items) > 1:
        table.add_section()
        table.add_row(*_cells(found.total, has_gpus), style="bold")
    OUTPUT.print(table)


def _cells(row: UsageRow, has_gpus: bool) -> list[str]:
    def hours(amount: Hours) -> str:
        value = amount.gpu if has_gpus else amount.cpu
        return f"{value:,.2f}" if value else "–"

    name = row.key if row.name == row.key else f"{row.key} {row.name}"
    causes = [hours(getattr(row.causes, cause.value)) for cause in HELD]
    goodput = f"{row.goodput:.1%}" if row.goodput is not None else "–"
    return [escape(name), hours(row.held), *causes, goodput, hours(row.queue)]
