"""`abruzzi validate` and `abruzzi plan`: need no running platform; with one, the plan knows pools, quota and queues."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from abruzzi.cli.session import (
    ERRORS,
    OUTPUT,
    JsonOption,
    RecipeArgument,
    SetOption,
    duration,
    overrides,
    print_json,
    quantity,
    read_recipe,
)
from abruzzi.client import Client
from abruzzi.client.transport import Unavailable
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.toml import load_recipe, parse_recipe, pool_overrides
from abruzzi.plan import plan_recipe

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
    as_json: JsonOption = False,
) -> None:
    """The dry run: parameters, FLOPs, memory, steps, time; with a platform also nodes, pods, quota, queue and when. Nothing is stored."""
    text, assigned = read_recipe(recipe), overrides(assign)
    load_recipe(text, {**assigned, **pool_overrides(text, pool)}, file=str(recipe))
    planned, lacks = _planned(text, assigned, pool, str(recipe))
    if as_json:
        print_json(planned)
    else:
        _print_plan(planned)
    for warning in planned["warnings"]:
        ERRORS.print(f"[yellow]![/] {escape(warning)}", soft_wrap=True)
    if lacks is not None:
        ERRORS.print(f"[dim]{escape(lacks)}[/]", soft_wrap=True)


def _planned(text: str, assigned: dict[str, str], pool: str | None, file: str) -> tuple[dict[str, Any], str | None]:
    """The plan, by the platform where there is one; else what is missing without it."""
    try:
        with Client(retry_seconds=0.0) as connection:
            return connection.recipes.plan(text, assigned, pool=pool), None
    except AbruzziError as error:
        if error.code not in _NO_PLATFORM and error.status != 401 and not isinstance(error, Unavailable):
            raise
    planned = plan_recipe(load_recipe(text, {**assigned, **pool_overrides(text, pool)}, file=file))
    return planned, _LACKS.format(where=f" in pool {pool!r}" if pool else "")


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
            OUTPUT.print(_training_table(stage["training"], stage.get("placement")))
        if "reinforcement" in stage:
            OUTPUT.print(f"\n[bold]{stage['id']}[/]")
            OUTPUT.print(_reinforcement_table(stage["reinforcement"], stage.get("placement")))


def _reinforcement_table(planned: dict[str, Any], placed: dict[str, Any] | None = None) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row(
        "parameters", f"{_parameters(planned['parameters'])} total, {quantity(planned['active'])} active a token"
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


def _training_table(training: dict[str, Any], placed: dict[str, Any] | None = None) -> Table:
    parameters, assumed, states = training["parameters"], training["assumptions"], training["states"]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row(
        "parameters", f"{_parameters(parameters['total'])} total, {quantity(parameters['active'])} active a token"
    )
    table.add_row(
        "work",
        f"{quantity(training['flops_per_token'], 'FLOP')} a token; Newton-Schulz {training['newton_schulz_share']:.2%} of a step",
    )
    steps = f"steps of {training['tokens_per_step']:,}"
    known = training["tokens"] is not None
    table.add_row(
        "tokens",
        f"{quantity(training['tokens'])} in {training['steps']:,} {steps}" if known else f"as the data has, in {steps}",
    )
    middle = states[len(states) // 2]
    table.add_row(
        "states",
        f"{quantity(middle['bytes'], 'B')} a rank (stage {middle['stage']} of {len(states)}: parameters and gradients)",
    )
    table.add_row("optimizer", f"{quantity(training['optimizer_bytes'], 'B')} a rank, unsharded")
    table.add_row(
        "activations",
        f"{quantity(training['activation_bytes'], 'B')} a micro-batch and stage; {quantity(training['activation_bytes_per_token_layer'], 'B')} a token and MoE layer",
    )
    there = (
        f"; {placed['memory_of']} has {quantity(placed['memory_there'], 'B')}"
        if placed and placed["memory_there"]
        else ""
    )
    table.add_row(
        "memory",
        f"{quantity(training['memory_least'], 'B')} a rank with the optimizer shared by the data-parallel ranks, {quantity(training['memory_most'], 'B')} without{there}",
    )
    if training["pipeline_bubble"]:
        table.add_row("pipeline bubble", f"{training['pipeline_bubble']:.1%}")
    rate = f"{training['tokens_per_second']:,.0f} tokens/s"
    table.add_row("time", f"{duration(training['seconds'])} at {rate}" if known else f"at {rate}")
    table.add_row(
        "",
        f"[dim]if each rank is one {assumed['device']} of {quantity(assumed['peak_flops'], 'FLOP/s')} at {assumed['utilisation']:.0%} ({assumed['source']})[/]",
    )
    return table


def _parameters(count: float) -> str:
    """1026.4B rather than 1.03T: model sizes are told apart by their billions."""
    return f"{count / 1e9:.1f}B" if count >= 1e12 else quantity(count)
