"""`abruzzi evaluations`: what suites came to, and two of them compared item by item."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from abruzzi.cli.session import OUTPUT, JsonOption, age, client, find_run, print_json
from abruzzi.contracts.evaluation import EvaluationOut, Figure, PairedOut

app = typer.Typer(no_args_is_help=True, help="What suites of questions came to.")
SHOWN_ITEMS = 20
_ID = typer.Argument(help="Id of an evaluation (`abruzzi evaluations list`).")


@app.command("list", epilog="Example: abruzzi evaluations list --suite humaneval")
def list_evaluations(
    suite: Annotated[str | None, typer.Option(help="`name`, or `name@version`.")] = None,
    run: Annotated[str | None, typer.Option(help="Of one run; `latest` is the newest.")] = None,
    target: Annotated[str | None, typer.Option(help="Of a checkpoint's digest, or of kind:model.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Newest first."""
    with client() as connection:
        run_id = find_run(connection, run) if run else None
        found = list(connection.evaluations.list(suite=suite, target=target, run_id=run_id))
    print_json(found) if as_json else print_evaluations(found)


@app.command("show", epilog="Example: abruzzi evaluations show EVALUATION")
def show(evaluation: Annotated[str, _ID], as_json: JsonOption = False) -> None:
    """One, with its parts and subtasks."""
    with client() as connection:
        found = connection.evaluations.get(evaluation)
    if as_json:
        print_json(found)
        return
    print_evaluations([found])
    summary = found.summary
    for title, figures in (("by part", summary.parts), ("by subtask", summary.subtasks)):
        for name, figure in figures.items():
            OUTPUT.print(f"{title:<11} {escape(name):<24} {figure_text(figure)}  ({figure.items} items)")
    for k, figure in summary.pass_at.items():
        OUTPUT.print(f"pass@{k:<6} {figure_text(figure)}")
    OUTPUT.print(f"[dim]Its answers: abruzzi artifacts rows {found.artifact_id} --noun answers[/]")


@app.command("compare", epilog="Example: abruzzi evaluations compare AFTER BEFORE")
def compare(
    evaluation: Annotated[str, _ID],
    other: Annotated[str, typer.Argument(help="What it is compared with.")],
    as_json: JsonOption = False,
) -> None:
    """The first minus the other, on the items that both have a score of, with interval and significance."""
    with client() as connection:
        found = connection.evaluations.compare(evaluation, other)
    print_json(found) if as_json else _print_pair(found)


def print_evaluations(found: list[EvaluationOut]) -> None:
    if not found:
        OUTPUT.print("There are no evaluations. Make one: abruzzi eval --suite demo --target smollm2")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("id", "suite", "target", "score (95 %)", "items", "no score", "truncated", "run", "made"):
        table.add_column(column, justify="right" if column in ("items", "no score", "truncated") else "left")
    for one in found:
        summary = one.summary
        table.add_row(
            one.id, escape(one.suite), escape(target_text(one)), figure_text(summary.score), str(summary.items), str(summary.missing),
            f"{summary.truncation_rate:.0%}", one.run_id, f"{age(one.created_at)} ago",
        )  # fmt: skip
    OUTPUT.print(table)


def target_text(evaluation: EvaluationOut) -> str:
    """In words: a model, or a checkpoint by the stage that made it."""
    detail = evaluation.target_detail
    if detail.get("digest"):
        yarn = f", YaRN {detail['yarn']}" if detail.get("yarn") else ""
        return f"{detail.get('run_id')} {detail.get('stage_id')} {detail.get('name')}{yarn}"
    return str(detail.get("model") or detail.get("kind"))


def figure_text(figure: Figure | None) -> str:
    if figure is None:
        return "–"
    interval = "too few items" if figure.low is None else f"{figure.low:.1%}–{figure.high:.1%}"
    return f"{figure.value:.1%} ({interval})"


def _print_pair(found: PairedOut) -> None:
    if found.difference is None:
        OUTPUT.print("They have no item in common that has a score on both sides.")
        return
    alike = "no interval: too few items, or all differ alike"
    interval = alike if found.low is None else f"95 %: {found.low:+.1%} to {found.high:+.1%}"
    certain = "significant at 5 %" if found.p_value < 0.05 else "not significant at 5 %"
    OUTPUT.print(
        f"{found.difference:+.1%} on {found.items} common items ({interval}); better on {found.better}, worse on {found.worse}; "
        f"sign test p = {found.p_value:.3g}: {certain}."
    )
    if found.left_out:
        OUTPUT.print(f"{found.left_out} items are left out: a side has no score of them.")
    for pair in found.changed[:SHOWN_ITEMS]:
        OUTPUT.print(f"  {escape(pair.item)}: {pair.a:g} → {pair.b:g}")
    if len(found.changed) > SHOWN_ITEMS:
        OUTPUT.print(f"  … and {len(found.changed) - SHOWN_ITEMS} more (--json shows all).")
