"""`abruzzi validate` and `abruzzi plan`: need no running platform; with one, the plan knows pools, quota and queues."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from abruzzi.cli.plan_view import model_size, print_refusals, print_training
from abruzzi.cli.session import (
    ERRORS,
    OUTPUT,
    JsonOption,
    RecipeArgument,
    SetOption,
    overrides,
    print_json,
    quantity,
    read_recipe,
)
from abruzzi.client import Client
from abruzzi.client.transport import Unavailable
from abruzzi.contracts.calibration import Calibration
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.toml import load_recipe, parse_recipe, pool_overrides
from abruzzi.plan import PlanOptions, plan_recipe
from abruzzi.plan.devices import Device, measured_device

_NO_PLATFORM = ("not_configured", "no_token")
_LACKS = (
    "Nodes, pods, quota, queue and waiting time{where} need a running platform, and none answers: `abruzzi up`, or `abruzzi login URL`. "
    "All else is here."
)


def validate(recipe: RecipeArgument, assign: SetOption = None, as_json: JsonOption = False) -> None:
    """Check a recipe: every mistake with file, line, key and remedy."""
    parsed, mistakes = parse_recipe(read_recipe(recipe), overrides(assign), file=str(recipe))
    if as_json:
        print_json({"valid": parsed is not None, "errors": [m.as_dict() for m in mistakes]})
    else:
        for mistake in mistakes:
            ERRORS.print(f"[red]✗[/] {escape(str(mistake))}", soft_wrap=True)
        if parsed is not None:
            OUTPUT.print(
                f"[green]✓[/] {escape(str(recipe))}: {parsed.name}, {len(parsed.stage)} stages: {' → '.join(s.id for s in parsed.stage)}"
            )
    if parsed is None:
        raise SystemExit(2)


def plan(
    recipe: RecipeArgument,
    assign: SetOption = None,
    pool: Annotated[
        str | None, typer.Option(metavar="POOL", help="As if every stage were in this pool of the platform.")
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, max=512, help="Of pre-training stages, instead of the recipe's ranks.")
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Rank the layouts that the same ranks allow, fastest first.")
    ] = False,
    price: Annotated[
        float | None, typer.Option(min=0.0, help="Of one GPU-hour, in any currency: then the cost is told in it.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="As on the machine whose operations FILE has the seconds of (bench/plan_calibration.py).",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The dry run: parameters, FLOPs, memory by rank, the simulated step, time and cost; with a platform also nodes, pods, quota, queue and when.
    Nothing is stored. Exit code 1: a training stage's layout cannot be, and why."""
    text, assigned = read_recipe(recipe), overrides(assign)
    load_recipe(text, {**assigned, **pool_overrides(text, pool)}, file=str(recipe))
    device = None if calibration is None else _measured(calibration)
    options = PlanOptions(sweep=sweep, price=price, nodes=nodes, device=device)
    planned, lacks = _planned(text, assigned, pool, str(recipe), options)
    if as_json:
        print_json(planned)
    else:
        _print_plan(planned)
    for warning in planned["warnings"]:
        ERRORS.print(f"[yellow]![/] {escape(warning)}", soft_wrap=True)
    refused = print_refusals(planned)
    if lacks is not None:
        ERRORS.print(f"[dim]{escape(lacks)}[/]", soft_wrap=True)
    if refused:
        raise SystemExit(1)


def _planned(
    text: str, assigned: dict[str, str], pool: str | None, file: str, options: PlanOptions
) -> tuple[dict[str, Any], str | None]:
    """The plan, by the platform where there is one; else what is missing without it. On a measured machine no platform is asked."""
    if options.device is not None:
        parsed = load_recipe(text, {**assigned, **pool_overrides(text, pool)}, file=file)
        return plan_recipe(parsed, options=options), None
    try:
        with Client(retry_seconds=0.0) as connection:
            asked = {"nodes": options.nodes, "sweep": options.sweep, "price": options.price}
            return connection.recipes.plan(text, assigned, pool=pool, **asked), None
    except AbruzziError as error:
        if error.code not in _NO_PLATFORM and error.status != 401 and not isinstance(error, Unavailable):
            raise
    planned = plan_recipe(load_recipe(text, {**assigned, **pool_overrides(text, pool)}, file=file), options=options)
    return planned, _LACKS.format(where=f" in pool {pool!r}" if pool else "")


def _measured(file: Path) -> Device:
    try:
        return measured_device(Calibration.model_validate_json(file.read_text()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise AbruzziError(
            "invalid_config",
            f"{file} is no table of operations: {where}: {first['msg']}.",
            hint="Make one by `python bench/plan_calibration.py --table FILE`.",
        ) from error


def _print_plan(planned: dict[str, Any]) -> None:
    stages = Table(box=None, pad_edge=False, header_style="dim")
    is_placed = any("placement" in stage for stage in planned["stages"])
    more = ("nodes", "pods", "GPUs", "workload") if is_placed else ()
    for column in ("stage", "kind", "needs", "pool", "ranks", *more):
        stages.add_column(column)
    for stage in planned["stages"]:
        needs = ", ".join(stage["needs"]) or "–"
        placed = stage.get("placement")
        cells = (
            [str(placed["nodes"]), str(placed["pods"]), str(placed["asked"]["gpus"]), placed["workload"] or "–"]
            if placed
            else []
        )
        stages.add_row(stage["id"], stage["kind"], needs, escape(stage["pool"]), str(stage["ranks"]), *cells)
    OUTPUT.print(f"[bold]{planned['recipe']}[/]")
    OUTPUT.print(stages)
    for stage in planned["stages"]:
        if "placement" in stage:
            OUTPUT.print(f"[dim]{stage['id']}:[/] {escape(stage['placement']['sentence'])}", soft_wrap=True)
    for stage in planned["stages"]:
        if "training" in stage:
            OUTPUT.print(f"\n[bold]{stage['id']}[/]")
            print_training(stage["training"], stage.get("placement"))
        if "reinforcement" in stage:
            OUTPUT.print(f"\n[bold]{stage['id']}[/]")
            OUTPUT.print(_reinforcement_table(stage["reinforcement"], stage.get("placement")))


def _reinforcement_table(planned: dict[str, Any], placed: dict[str, Any] | None = None) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row(
        "parameters", f"{model_size(planned['parameters'])} total, {quantity(planned['active'])} active a token"
    )
    begun = (
        f" ({planned['trajectories_begun']:,} begun)"
        if planned["trajectories_begun"] > planned["trajectories_per_iteration"]
        else ""
    )
    table.add_row(
        "iterations",
        f"{planned['iterations']:,} of {planned['trajectories_per_iteration']:,} trajectories{begun}; {planned['steps']:,} optimizer steps",
    )
    table.add_row(
        "tokens",
        f"at most {quantity(planned['tokens_per_iteration_most'])} of the policy an iteration, {quantity(planned['tokens_most'])} in all",
    )
    phases = ", ".join(f"{name} {quantity(size, 'B')}" for name, size in planned["phase_bytes"].items())
    there = (
        f"; {placed['memory_of']} has {quantity(placed['memory_there'], 'B')}"
        if placed and placed["memory_there"]
        else ""
    )
    table.add_row("memory", f"{phases}, of the rank that trains{there}")
    more = planned["replicas"] - 1
    if more:
        table.add_row("replicas", f"{more} more, {quantity(planned['replica_bytes'], 'B')} each")
    table.add_row("update", f"{quantity(planned['broadcast_bytes'], 'B')} to each engine, once an iteration")
    return table
