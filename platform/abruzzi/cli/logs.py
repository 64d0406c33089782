"""`abruzzi logs`: what a stage printed."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from abruzzi.cli.session import ERRORS, JsonOption, RunArgument, client, find_run, print_json
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.resources import AttemptOut, LogLine, RunOut


def logs(
    run: RunArgument,
    stage: Annotated[str | None, typer.Argument(help="By default the stage that ran last.")] = None,
    attempt: Annotated[int | None, typer.Option(help="Number of the attempt; by default the newest.")] = None,
    rank: Annotated[int | None, typer.Option(min=0, help="By default the one that failed, else 0.")] = None,
    tail: Annotated[int, typer.Option("--tail", "-n", min=1, help="Last lines.")] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the attempt ends.")] = False,
    grep: Annotated[str | None, typer.Option(help="Only lines that hold this text.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Log lines of a stage; they stay when the process or pod is gone."""
    with client() as connection:
        found = connection.runs.get(find_run(connection, run))
        chosen = _attempt(found, stage, attempt)
        if rank is None:
            rank = chosen.failed_rank or 0
            if rank:
                ERRORS.print(f"Of rank {rank}, which failed; --rank shows another.", style="dim")
        page = connection.logs.page(chosen.id, rank=rank, tail=tail, q=grep)
        if as_json and not follow:
            print_json(page)
            return
        for line in page.lines:
            _write(line, as_json)
        if follow:
            for line in connection.logs.follow(chosen.id, rank=rank, offset=page.next_offset):
                if grep is None or grep in line.text:
                    _write(line, as_json)


def _write(line: LogLine, as_json: bool) -> None:
    """With --follow --json a line of JSON each: an endless document could not be parsed."""
    sys.stdout.write((line.model_dump_json() if as_json else line.text) + "\n")
    sys.stdout.flush()


def _attempt(run: RunOut, stage_id: str | None, number: int | None) -> AttemptOut:
    tried = [s for s in run.detail if s.attempts]
    if not tried:
        raise AbruzziError("no_attempt", f"No stage of {run.id} has started.", hint=f"`abruzzi runs why {run.id}`")
    chosen = (
        [s for s in tried if s.id == stage_id] if stage_id else [max(tried, key=lambda s: s.attempts[-1].created_at)]
    )
    if not chosen:
        raise AbruzziError(
            "no_attempt",
            f"Stage {stage_id!r} of {run.id} has no attempt.",
            hint=f"Stages with logs: {', '.join(s.id for s in tried)}.",
        )
    attempts = [a for a in chosen[0].attempts if number is None or a.number == number]
    if not attempts:
        raise AbruzziError(
            "no_attempt",
            f"Stage {chosen[0].id!r} has no attempt {number}.",
            hint=f"It has 1 to {chosen[0].attempts[-1].number}.",
        )
    return attempts[-1]
