"""`abruzzi run`: submit a recipe; with --wait follow it, exit with its code, and write summaries for CI."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from abruzzi.cli.runs import print_run, waiting_reason
from abruzzi.cli.session import (
    OUTPUT,
    STATE_MARK,
    STATE_STYLE,
    JsonOption,
    RecipeArgument,
    SetOption,
    absolute_sources,
    age,
    client,
    duration,
    overrides,
    print_json,
    read_recipe,
)
from abruzzi.cli.summary import junit, markdown
from abruzzi.client import Client
from abruzzi.client.transport import Unavailable
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.resources import RunOut, StageOut
from abruzzi.contracts.states import RunState, StageState
from abruzzi.contracts.toml import load_recipe


def run(
    recipe: RecipeArgument,
    assign: SetOption = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; by default the recipe's.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow it to its end; the exit code tells how it ended.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(min=1, help="With --wait: seconds until giving up (exit code 1; the run goes on).")
    ] = None,
    junit_file: Annotated[
        Path | None, typer.Option("--junit", help="With --wait: write a JUnit report for CI.")
    ] = None,
    markdown_file: Annotated[
        Path | None,
        typer.Option("--markdown", help="With --wait: append a Markdown summary, for example to $GITHUB_STEP_SUMMARY."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Submit a recipe. Checked here first, so that a mistake costs no round trip."""
    text, assigned = read_recipe(recipe), overrides(assign)
    parsed = load_recipe(text, assigned, file=str(recipe))
    assigned |= absolute_sources(parsed, recipe.parent)
    with client() as connection:
        submitted = connection.runs.submit(text, assigned, name=name)
        if not as_json:
            OUTPUT.print(
                f"[green]✓[/] {escape(submitted.name)}  [bold]{submitted.id}[/]  {connection.run_page(submitted.id)}",
                soft_wrap=True,
            )
        if not wait:
            print_json(submitted) if as_json else OUTPUT.print(f"[dim]Follow it: abruzzi runs watch {submitted.id}[/]")
            return
        try:
            code = follow(connection, submitted.id, timeout_seconds=timeout, quiet=as_json)
        finally:  # after a timeout too: that the run did not end is what CI wants to read
            ended = connection.runs.get(submitted.id)
            if junit_file:
                junit_file.write_text(junit(ended))
            if markdown_file:
                with markdown_file.open("a") as file:
                    file.write(markdown(ended, connection.run_page(ended.id)))
    if as_json:
        print_json(ended)
    raise SystemExit(code)


def follow(connection: Client, run_id: str, *, timeout_seconds: float | None = None, quiet: bool = False) -> int:
    """Progress bars until the run has ended. Returns `exit_code`. The platform may restart meanwhile."""
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    view = RunProgress()
    last: RunOut | None = None
    with (
        Live(view.progress, console=OUTPUT, refresh_per_second=4, transient=False)
        if not quiet and OUTPUT.is_terminal
        else _Plain(view, quiet)
    ):
        while deadline is None or time.monotonic() < deadline:
            try:
                last = connection.runs.get(run_id)
            except Unavailable:
                view.note("the platform does not answer; still looking")
                continue
            view.update(last)
            if last.state.is_terminal:
                break
            time.sleep(0.5)
    if last is None or not last.state.is_terminal:
        raise AbruzziError(
            "timeout",
            f"Run {run_id} did not end within {timeout_seconds:.0f} s; it goes on.",
            hint=f"`abruzzi runs why {run_id}`",
        )
    if not quiet and last.state is not RunState.SUCCEEDED:
        print_run(last)
        OUTPUT.print(f"\n{escape(connection.runs.why(run_id).sentence)}", soft_wrap=True)
    return exit_code(last)


def exit_code(run: RunOut) -> int:
    """0 when it succeeded; the contract's code of the attempt that failed it (64, 65, 75, 76, 137, 143); else 1."""
    if run.state is RunState.SUCCEEDED:
        return 0
    for stage in run.detail:
        if (
            stage.state is StageState.FAILED
            and stage.attempts
            and stage.attempts[-1].exit_code in (64, 65, 75, 76, 137, 143)
        ):
            return int(stage.attempts[-1].exit_code)
    return 1


class RunProgress:
    """One bar a stage, with what the rank says and an ETA."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("{task.fields[mark]}"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>4.0f}%"),
            TextColumn("[dim]{task.fields[note]}[/]"),
            console=OUTPUT,
        )
        self.tasks: dict[str, int] = {}
        self.lines: list[str] = []
        self._states: dict[str, str] = {}
        self._tenths: dict[str, int] = {}

    def update(self, run: RunOut) -> None:
        for stage in run.detail:
            mark = f"[{STATE_STYLE.get(stage.state, 'white')}]{STATE_MARK.get(stage.state, '○')}[/]"
            if stage.id not in self.tasks:
                self.tasks[stage.id] = self.progress.add_task(stage.id, total=1.0, mark=mark, note="")
            share = 1.0 if stage.state is StageState.SUCCEEDED else stage.progress or 0.0
            self.progress.update(self.tasks[stage.id], completed=share, mark=mark, note=escape(_note(stage)))  # type: ignore[arg-type]
            if self._states.get(stage.id) != stage.state:
                self._states[stage.id] = stage.state
                self.lines.append(
                    f"{stage.id}: {stage.state}"
                    + (f" after {age(stage.started_at, stage.ended_at)}" if stage.ended_at and stage.started_at else "")
                )
            tenth = int(10 * share)
            if stage.state is StageState.RUNNING and tenth != self._tenths.get(stage.id, 0):
                self._tenths[stage.id] = tenth  # less than before: its next part, or its next attempt
                if tenth > 0:
                    self.lines.append(f"{stage.id}: {10 * tenth} %  {_note(stage)}".rstrip())

    def note(self, text: str) -> None:
        if not self.lines or self.lines[-1] != text:
            self.lines.append(text)


class _Plain:
    """Where there is no terminal: one line for each change of state, and for each tenth of a stage's part."""

    def __init__(self, view: RunProgress, quiet: bool) -> None:
        if not quiet:
            view.lines = _PrintingList()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


class _PrintingList(list[str]):
    def append(self, line: str) -> None:
        super().append(line)
        OUTPUT.print(line, markup=False)


def _note(stage: StageOut) -> str:
    if stage.state is StageState.RUNNING and stage.attempts:
        ranks = stage.attempts[-1].ranks
        said = next((r.message for r in ranks if r.message), "")
        eta = f"ETA {duration(stage.eta_seconds)}" if stage.eta_seconds and not said.endswith(" left") else ""
        retried = f"attempt {stage.attempts[-1].number}" if len(stage.attempts) > 1 else ""
        return "  ".join(part for part in (eta, said, retried) if part)
    if stage.ended_at and stage.started_at:
        return age(stage.started_at, stage.ended_at)
    return stage.reason or waiting_reason(stage)
