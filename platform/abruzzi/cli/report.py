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
    OUTPUT.rule(f"{run.name} {run.id}")
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
            f"\n[bold]Checkpoint[/]  {last.name}, {decimal(last.size_bytes)}, artifact {last.id}\n            [dim]abruzzi artifacts pull {last.id}[/]"
        )
    OUTPUT.print(
        f"[bold]Page[/]        {connection.run_page(run_id)}   took {age(run.started_at, run.ended_at)}", soft_wrap=True
    )


def _print_evaluation(report: dict[str, Any]) -> None:
    table = Table(
        box=None,
        pad_edge=False,
        header_style="dim",
        title="held-out bits per byte (95 % interval)",
        title_justify="left",
        title_style="bold",
    )
    for column in ("domain", "model", "", "n-gram bytes", "better by"):
        table.add_column(column, justify="left" if column == "domain" else "right")
    for domain, row in report["bits_per_byte"].items():
        ngram = row.get("ngram")
        gain = f"{1 - row['value'] / ngram:.1%}" if ngram else ""
        table.add_row(
            domain,
            f"{row['value']:.3f}",
            f"{row['low']:.3f}–{row['high']:.3f}",
            f"{ngram:.3f}" if ngram else "",
            gain,
            style="bold" if domain == "all" else "",
        )
    OUTPUT.print()
    OUTPUT.print(table)
    cloze = report.get("cloze")
    if cloze:
        OUTPUT.print(
            f"cloze  {cloze['accuracy']:.1%} of {cloze['items']} right ({cloze['low']:.1%}–{cloze['high']:.1%}); chance {cloze['chance']:.1%}"
        )
    for sample in report.get("samples", []):
        OUTPUT.print(
            Panel(
                f"[bold]{escape(sample['prompt'])}[/]{escape(sample['text'])}",
                title="sample",
                title_align="left",
                border_style="dim",
            )
        )
