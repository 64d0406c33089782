"""The report of a run in the terminal: stages and times, the loss curve, held-out bits per byte, sample text, where the checkpoint is."""

from __future__ import annotations

import json
from typing import Any

from rich.filesize import decimal
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from abruzzi.cli.metrics import draw_curve
from abruzzi.cli.runs import print_run
from abruzzi.cli.session import OUTPUT, age
from abruzzi.client import Client
from abruzzi.contracts.states import ArtifactKind


def print_report(connection: Client, run_id: str) -> None:
    """Everything that a person wants to know of an ended run. Parts that the run did not make are left out."""
    run = connection.runs.get(run_id)
    OUTPUT.rule(escape(f"{run.name} {run.id}"))
    print_run(run)
    series = connection.metrics.series(run_id, ["train/loss"], max_points=400)
    if series:
        OUTPUT.print()
        OUTPUT.print(
            draw_curve(
                "training loss (nats a token) by step",
                [(f"attempt {s.attempt_id.rsplit('-', 1)[-1]}", s) for s in series],
            ),
            markup=False,
            end="",
        )
    for artifact in connection.artifacts.list(run_id, kind=ArtifactKind.REPORT):
        _print_evaluation(json.loads(connection.artifacts.read(artifact.id, "report.json")))
    checkpoints = [a for a in connection.artifacts.list(run_id, kind=ArtifactKind.CHECKPOINT) if a.deleted_at is None]
    if checkpoints:
        last = max(checkpoints, key=lambda a: a.step or 0)
        OUTPUT.print(
            f"\n[bold]Checkpoint[/]  {escape(last.name)}, {decimal(last.size_bytes)}, artifact {last.id}\n            [dim]abruzzi artifacts pull {last.id}[/]"
        )
    OUTPUT.print(
        f"[bold]Page[/]        {connection.run_page(run_id)}   took {age(run.started_at, run.ended_at)}", soft_wrap=True
    )


def _print_evaluation(report: dict[str, Any]) -> None:
    order = report["ngram_order"]
    table = Table(
        box=None,
        pad_edge=False,
        header_style="dim",
        title="Held-out bits per byte (95 % interval)",
        title_justify="left",
        title_style="bold",
    )
    for column in ("domain", "model", "", f"{order}-gram bytes" if order else "", "better by" if order else ""):
        table.add_column(column, justify="left" if column == "domain" else "right")
    for domain, row in report["held_out"].items():
        mine, ngram = row["bits_per_byte"], row.get("ngram_bits_per_byte")
        gain = f"{1 - mine['value'] / ngram['value']:+.1%}" if ngram else ""
        interval = "too few documents" if mine["low"] is None else f"{mine['low']:.3f}–{mine['high']:.3f}"
        style = "bold" if domain == "all" else ""
        table.add_row(
            escape(domain),
            f"{mine['value']:.3f}",
            interval,
            f"{ngram['value']:.3f}" if ngram else "",
            gain,
            style=style,
        )
    OUTPUT.print()
    OUTPUT.print(table)
    cloze = report.get("cloze")
    if cloze:
        right = cloze["accuracy"]
        OUTPUT.print(
            f"\n[bold]Cloze[/] {right['value']:.1%} of {cloze['items']} items right ({right['low']:.1%}–{right['high']:.1%}); chance {cloze['chance']:.1%}"
        )
    for sample in report.get("samples", []):
        text = f"[bold]{escape(sample['prompt'])}[/]{escape(sample['text'])}"
        OUTPUT.print(Panel(text, title="sample", title_align="left", border_style="dim"))
