"""`abruzzi compare`: what differs between runs, in recipe and result."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from abruzzi.cli.metrics import draw_curve
from abruzzi.cli.session import OUTPUT, JsonOption, client, find_run, print_json


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN…", help="Two or more; the first is the baseline.")],
    key: Annotated[str, typer.Option(help="Curve to overlay.")] = "train/loss",
    as_json: JsonOption = False,
) -> None:
    """Overlay a curve of several runs and show only what differs in their recipes."""
    if len(runs) < 2:
        raise typer.BadParameter("give two runs or more", param_hint="RUN")
    with client() as connection:
        found = [connection.runs.get(find_run(connection, r)) for r in runs]
        curves = [(r, s) for r in found for s in connection.metrics.series(r.id, [key])]
    flat = [_flatten(r.recipe) for r in found]
    keys = sorted({k for f in flat for k in f})
    different = {k: [f.get(k) for f in flat] for k in keys if len({repr(f.get(k)) for f in flat}) > 1}
    if as_json:
        print_json(
            {
                "runs": [r.id for r in found],
                "recipe": different,
                "headline": [r.headline for r in found],
                "curves": [{"run": r.id, "series": s} for r, s in curves],
            }
        )
        return
    OUTPUT.print(draw_curve(f"{key} by step", [(f"{r.name} {r.id}", s) for r, s in curves]), markup=False)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    for r in found:
        table.add_column(escape(f"{r.name} {r.id}"))
    for name in sorted({k for r in found for k in r.headline}):
        table.add_row(escape(name), *(_delta(r.headline.get(name), found[0].headline.get(name)) for r in found))
    for name, values in different.items():
        table.add_row(escape(name), *(escape(str(v)) for v in values))
    OUTPUT.print(table)
    if not different:
        OUTPUT.print("[dim]The recipes are the same.[/]")


def _delta(value: float | None, baseline: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if baseline is None or value == baseline else f"{value:.4g} ({value - baseline:+.3g})"


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys; stages go by their ids, so that an inserted stage does not shift the others."""
    if isinstance(value, dict):
        return {
            k: v for key, item in value.items() for k, v in _flatten(item, f"{prefix}.{key}" if prefix else key).items()
        }
    if isinstance(value, list) and value and all(isinstance(i, dict) and "id" in i for i in value):
        return {k: v for item in value for k, v in _flatten(item, f"{prefix}.{item['id']}").items()}
    return {prefix: value}
