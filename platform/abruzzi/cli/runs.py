"""`abruzzi runs …`: see and steer runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from abruzzi.cli.session import (
    OUTPUT,
    JsonOption,
    RunArgument,
    SetOption,
    absolute_sources,
    age,
    client,
    duration,
    find_run,
    overrides,
    print_json,
    read_recipe,
    state_text,
)
from abruzzi.client.export import CurveFormat, RunFolder
from abruzzi.contracts.resources import RunOut, StageOut
from abruzzi.contracts.states import StageState
from abruzzi.contracts.toml import load_recipe

app = typer.Typer(
    help="See and steer runs.", no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]}
)


@app.command("list", epilog="Example: abruzzi runs list --state running")
def list_(
    state: Annotated[list[str] | None, typer.Option(help="Only runs in this state. Repeatable.")] = None,
    q: Annotated[str | None, typer.Option("--filter", help="Part of the name or id.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 30,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first."""
    with client() as connection:
        found = [run for run, _ in zip(connection.runs.list(state=state or (), q=q), range(limit), strict=False)]
    if as_json:
        print_json(found)
        return
    if not found:
        OUTPUT.print("No runs yet. Submit one: [bold]abruzzi run recipes/tiny.toml[/]")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("run", "name", "state", "stages", "headline", "took", "submitted"):
        table.add_column(column)
    for run in found:
        done = sum(s["state"] == "succeeded" for s in run.stages)
        headline = "  ".join(f"{k.rsplit('/')[-1]} {v:.3g}" for k, v in run.headline.items())
        table.add_row(
            run.id,
            escape(run.name),
            state_text(run.state),
            f"{done}/{len(run.stages)}",
            escape(headline),
            age(run.started_at, run.ended_at),
            age(run.created_at) + " ago",
        )
    OUTPUT.print(table)


@app.command(epilog="Example: abruzzi runs show latest")
def show(run: RunArgument, as_json: JsonOption = False) -> None:
    """One run: stages, attempts, why it is where it is."""
    with client() as connection:
        found = connection.runs.get(find_run(connection, run))
        why_ = connection.runs.why(found.id)
        page = connection.run_page(found.id)
    if as_json:
        print_json(found)
        return
    print_run(found)
    OUTPUT.print(f"\n{escape(why_.sentence)}\n[dim]{page}[/]", soft_wrap=True)


@app.command(epilog="Example: abruzzi runs why latest")
def why(run: RunArgument, as_json: JsonOption = False) -> None:
    """Why a run waits, runs or failed, in one sentence with numbers."""
    with client() as connection:
        answer = connection.runs.why(find_run(connection, run))
    print_json(answer) if as_json else OUTPUT.print(answer.sentence, soft_wrap=True, markup=False)


@app.command(epilog="Example: abruzzi runs stop latest")
def stop(run: RunArgument, as_json: JsonOption = False) -> None:
    """Cancel a run. Training stages save a checkpoint first, so that it can be branched."""
    with client() as connection:
        found = connection.runs.cancel(find_run(connection, run))
    print_json(found) if as_json else OUTPUT.print(
        f"{found.id} is {state_text(found.state)}. Its checkpoints stay: abruzzi artifacts list {found.id}"
    )


@app.command(epilog="Example: abruzzi runs retry latest --stage pretrain")
def retry(
    run: RunArgument,
    stage: Annotated[
        str | None, typer.Option(help="From this stage on; by default from the first that did not succeed.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run a failed or cancelled run's stages again, from its last checkpoint."""
    with client() as connection:
        found = connection.runs.retry(find_run(connection, run), stage)
    print_json(found) if as_json else OUTPUT.print(
        f"{found.id} is {state_text(found.state)}. Watch it: abruzzi runs watch {found.id}"
    )


@app.command(epilog='Example: abruzzi runs override latest promote --reason "people read the ten wrong answers"')
def override(
    run: RunArgument,
    stage: Annotated[str, typer.Argument(help="The stage that its gate keeps from starting.")],
    reason: Annotated[str, typer.Option(help="Why; it stays in the run's events.")],
    as_json: JsonOption = False,
) -> None:
    """Let a stage start although its gate does not hold (maintainers; the audit log keeps it)."""
    with client() as connection:
        found = connection.runs.override_gate(find_run(connection, run), stage, reason)
    print_json(found) if as_json else OUTPUT.print(
        f"{found.id} is {state_text(found.state)}. Watch it: abruzzi runs watch {found.id}"
    )


@app.command(epilog="Example: abruzzi runs branch latest ARTIFACT --set stage.pretrain.optimizer.peak_lr=5e-4")
def branch(
    run: RunArgument,
    artifact: Annotated[str, typer.Argument(help="Id of the checkpoint to go on from (`abruzzi artifacts list RUN`).")],
    assign: SetOption = None,
    recipe: Annotated[
        Path | None, typer.Option(help="Another recipe that has the checkpoint's stage; by default the run's own.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new run.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Start a new run from a checkpoint of another, with other values if you like."""
    text, assigned = None, overrides(assign)
    if recipe is not None:
        text = read_recipe(recipe)
        assigned |= absolute_sources(load_recipe(text, assigned, file=str(recipe)), recipe.parent)
    with client() as connection:
        run_id = find_run(connection, run)
        found = connection.runs.branch(run_id, artifact, assigned, recipe_toml=text, name=name)
    print_json(found) if as_json else OUTPUT.print(
        f"{found.id} ({escape(found.name)}) goes on from {escape(artifact)}. Watch it: abruzzi runs watch {found.id}"
    )


@app.command(epilog="Example: abruzzi runs watch latest")
def watch(run: RunArgument, as_json: JsonOption = False) -> None:
    """Follow a run with progress bars until it ends."""
    from abruzzi.cli.run import follow

    with client() as connection:
        run_id = find_run(connection, run)
        code = follow(connection, run_id, quiet=as_json)
        if as_json:
            print_json(connection.runs.get(run_id))
    raise SystemExit(code)


@app.command(epilog="Example: abruzzi runs export latest --to ./run --format parquet --format tensorboard")
def export(
    run: RunArgument,
    to: Annotated[Path, typer.Option(help="Folder to write into.")] = Path("export"),
    formats: Annotated[
        list[CurveFormat] | None, typer.Option("--format", help="Of the curves. Repeatable; by default CSV.")
    ] = None,
    max_points: Annotated[int, typer.Option(min=100, help="Points a curve.")] = 100_000,
    store: Annotated[
        bool, typer.Option("--store", help="Into the object store, as an artifact, instead of a folder here.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Take a run's data away: run.json, recipe.toml, events and every curve."""
    with client() as connection:
        run_id = find_run(connection, run)
        if store:
            asked = connection.runs.export(run_id)
            said = f"{escape(asked.name)} is being made: abruzzi artifacts list {run_id} --kind export"
            print_json(asked) if as_json else OUTPUT.print(said)
            return
        keys = sorted({k.key for k in connection.metrics.keys(run_id)})
        found, told = connection.runs.get(run_id), connection.runs.events(run_id)
        with RunFolder(to, found, told, formats or [CurveFormat.CSV]) as folder:
            for key in keys:
                for curve in connection.metrics.series(run_id, [key], max_points=max_points):
                    folder.add(curve)
        files = folder.files()
    if as_json:
        print_json({"run": run_id, "folder": str(to), "files": files, "curves": keys})
    else:
        OUTPUT.print(f"[green]✓[/] {escape(str(to))}: {', '.join(files)} ({len(keys)} curves)")


def print_run(run: RunOut) -> None:
    """Stages of a run as a table."""
    OUTPUT.print(f"[bold]{escape(run.name)}[/]  {run.id}  {state_text(run.state)}  {age(run.started_at, run.ended_at)}")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("stage", "kind", "state", "progress", "ETA", "took", "attempts", ""):
        table.add_column(column)
    for stage in run.detail:
        progress = f"{stage.progress:.0%}" if stage.progress is not None else ""
        table.add_row(
            stage.id,
            stage.kind,
            state_text(stage.state),
            progress,
            duration(stage.eta_seconds) if stage.eta_seconds else "",
            age(stage.started_at, stage.ended_at) if stage.started_at else "",
            _attempts(stage),
            escape(stage.reason or waiting_reason(stage)),
        )
    OUTPUT.print(table)


def waiting_reason(stage: StageOut) -> str:
    """What its attempt waits for in the cluster."""
    return (stage.attempts[-1].reason or "") if stage.state is StageState.PENDING and stage.attempts else ""


def _attempts(stage: StageOut) -> str:
    return " ".join(f"#{a.number} {a.cause or a.state}" for a in stage.attempts)
