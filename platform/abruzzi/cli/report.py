"""The report of a run in the terminal: stages and times, curves of loss and reward, held-out bits per byte, what was answered before and after, where the checkpoint is."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

from rich.filesize import decimal
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from abruzzi.cli.evaluations import print_evaluations
from abruzzi.cli.metrics import draw_curve
from abruzzi.cli.runs import print_run
from abruzzi.cli.session import OUTPUT, age
from abruzzi.client import Client
from abruzzi.contracts.resources import ArtifactOut
from abruzzi.contracts.states import ArtifactKind

SHOWN_ANSWERS = 4
"""Of an iteration."""
SHOWN_CHARACTERS = 100


def print_report(connection: Client, run_id: str) -> None:
    """Everything that a person wants to know of an ended run. Parts that the run did not make are left out."""
    run = connection.runs.get(run_id)
    OUTPUT.rule(escape(f"{run.name} {run.id}"))
    print_run(run)
    _print_curves(connection, run_id, "train/loss", "training loss (nats a token) by step")
    _print_curves(connection, run_id, "rl/reward", "mean reward by iteration")
    _print_held_out_reward(connection, run_id)

    def kept(kind: ArtifactKind) -> list[ArtifactOut]:
        """Without those that retention has removed."""
        return [artifact for artifact in connection.artifacts.list(run_id, kind=kind) if artifact.deleted_at is None]

    for artifact in kept(ArtifactKind.ROLLOUTS):
        _print_answers(connection, artifact)
    for artifact in kept(ArtifactKind.REPORT):
        told = json.loads(connection.artifacts.read(artifact.id, "report.json"))
        if "held_out" in told:
            _print_evaluation(told, artifact.stage_id)
    if evaluations := list(connection.evaluations.list(run_id=run_id)):
        OUTPUT.print()
        print_evaluations(evaluations)
    if checkpoints := kept(ArtifactKind.CHECKPOINT):
        last = max(checkpoints, key=lambda a: (a.created_at, a.step or 0))
        OUTPUT.print(
            f"\n[bold]Checkpoint[/]  {escape(last.name)}, {decimal(last.size_bytes)}, artifact {last.id}\n            [dim]abruzzi artifacts pull {last.id}[/]"
        )
    OUTPUT.print(
        f"[bold]Page[/]        {connection.run_page(run_id)}   took {age(run.started_at, run.ended_at)}", soft_wrap=True
    )


def _print_curves(connection: Client, run_id: str, key: str, title: str) -> None:
    """One chart a stage that has sent it."""
    series = connection.metrics.series(run_id, [key], max_points=400)
    for stage in dict.fromkeys(s.stage_id for s in series):
        curves = [(f"attempt {s.attempt_id.rsplit('-', 1)[-1]}", s) for s in series if s.stage_id == stage]
        OUTPUT.print()
        OUTPUT.print(draw_curve(f"{stage}: {title}", curves), markup=False, end="")


def _print_held_out_reward(connection: Client, run_id: str) -> None:
    points: dict[str, dict[int, float]] = {}
    for series in connection.metrics.series(run_id, ["rl/held_out_reward"], max_points=400):
        known = {step: value for step, value in zip(series.steps, series.values, strict=True) if value is not None}
        points.setdefault(series.stage_id, {}).update(known)
    for stage, found in points.items():
        told = (f"{found[step]:.2f} {f'after iteration {step}' if step else 'before'}" for step in sorted(found))
        OUTPUT.print(f"\n[bold]{escape(stage)}[/]: mean reward of held-out tasks: {', '.join(told)}")


def _print_answers(connection: Client, rollouts: ArtifactOut) -> None:
    """What the policy said to some tasks in its first iteration, and to others in its last."""
    last = rollouts.meta.get("iterations", 0)
    table = Table(
        box=None,
        pad_edge=False,
        header_style="dim",
        title=f"{rollouts.stage_id}: what it answered",
        title_justify="left",
        title_style="bold",
    )
    for column in ("iteration", "task", "answer", "reward"):
        table.add_column(column)
    for iteration in dict.fromkeys((1, last)):
        where = [f"iteration:{iteration}", "member:0"]
        for found in islice(
            connection.artifacts.rows(rollouts.id, "rollouts", where=where, cut=SHOWN_CHARACTERS), SHOWN_ANSWERS
        ):
            messages = found.row["messages"]
            said = {message["role"]: message.get("content") or "" for message in reversed(messages)}
            reward = found.row["reward"]
            table.add_row(
                str(iteration),
                escape(said.get("user", "")),
                escape(said.get("assistant") or _cut(found.row["segments"])),
                found.row["fate"] if reward is None else f"{reward:g}",
            )
    OUTPUT.print()
    OUTPUT.print(table)


def _cut(segments: list[dict[str, Any]]) -> str:
    """What was said when its budget was used up: no message yet."""
    return next((f"{s['text']} …" for s in reversed(segments) if s["source"] == "policy"), "")


def _print_evaluation(report: dict[str, Any], stage: str) -> None:
    order = report["ngram_order"]
    table = Table(
        box=None,
        pad_edge=False,
        header_style="dim",
        title=f"{stage}: held-out bits per byte (95 % interval)",
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
