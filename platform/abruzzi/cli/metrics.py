"""`abruzzi metrics`: curves as numbers and as a picture in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import plotext
import typer
from rich.markup import escape
from rich.table import Table

from abruzzi.cli.session import OUTPUT, JsonOption, RunArgument, client, find_run, print_json
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.graph import nearest
from abruzzi.contracts.resources import SeriesOut


def metrics(
    run: RunArgument,
    key: Annotated[
        list[str] | None, typer.Argument(help="Such as train/loss; without one, all keys and their last values.")
    ] = None,
    max_points: Annotated[
        int, typer.Option(min=10, help="Points a curve; more come as buckets with exact extrema.")
    ] = 500,
    log: Annotated[bool, typer.Option("--log", help="Logarithmic y axis.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Curves of a run."""
    with client() as connection:
        run_id = find_run(connection, run)
        if not key:
            keys = connection.metrics.keys(run_id)
            if as_json:
                print_json(keys)
                return
            table = Table(box=None, pad_edge=False, header_style="dim")
            for column in ("stage", "key", "last step", "last value"):
                table.add_column(column)
            for item in keys:
                table.add_row(
                    item.stage_id,
                    escape(item.key),
                    str(item.last_step),
                    "–" if item.last_value is None else f"{item.last_value:.6g}",
                )
            OUTPUT.print(table if keys else "No metrics yet.")
            return
        series = connection.metrics.series(run_id, key, max_points=max_points)
        if not series:
            known = sorted({item.key for item in connection.metrics.keys(run_id)})
            raise AbruzziError(
                "no_such_metric",
                f"Run {run_id} has no points of {', '.join(key)}.",
                hint=nearest(key[0], known) if known else "It has logged nothing yet.",
            )
    if as_json:
        print_json(series)
        return
    for name in key:
        OUTPUT.print(
            draw_curve(f"{name} by step", [(s.attempt_id, s) for s in series if s.key == name], log=log), markup=False
        )


def draw_curve(
    title: str,
    curves: Sequence[tuple[str, SeriesOut]],
    *,
    log: bool = False,
    width: int | None = None,
    height: int = 18,
) -> str:
    """A terminal picture; empty curves are left out."""
    plotext.clear_figure()
    plotext.plot_size(width or min(100, OUTPUT.width), height)
    plotext.theme("clear")
    plotext.title(title)
    drawn = 0
    for label, series in curves:
        points = [
            (x, y) for x, y in zip(series.steps, series.values, strict=True) if y is not None and (y > 0 or not log)
        ]
        if points:
            plotext.plot(
                [x for x, _ in points],
                [y for _, y in points],
                marker="braille",
                label=label if len(curves) > 1 else None,
            )
            drawn += 1
    if not drawn:
        return f"{title}: no points"
    if log:
        plotext.yscale("log")
    return plotext.uncolorize(plotext.build())
