"""`abruzzi validate` and `abruzzi plan`: need no running platform."""

from __future__ import annotations

from typing import Any

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
from abruzzi.contracts.toml import load_recipe, parse_recipe
from abruzzi.plan import plan_recipe


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


def plan(recipe: RecipeArgument, assign: SetOption = None, as_json: JsonOption = False) -> None:
    """What a recipe needs and takes: parameters, FLOPs, memory, steps, time."""
    parsed = load_recipe(read_recipe(recipe), overrides(assign), file=str(recipe))
    planned = plan_recipe(parsed)
    if as_json:
        print_json(planned)
        return
    stages = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("stage", "kind", "needs", "pool", "ranks"):
        stages.add_column(column)
    for stage in planned["stages"]:
        needs = ", ".join(stage["needs"]) or "–"
        stages.add_row(stage["id"], stage["kind"], needs, escape(stage["pool"]), str(stage["ranks"]))
    OUTPUT.print(f"[bold]{planned['recipe']}[/]")
    OUTPUT.print(stages)
    for stage in planned["stages"]:
        if "training" in stage:
            OUTPUT.print(f"\n[bold]{stage['id']}[/]")
            OUTPUT.print(_training_table(stage["training"]))
    for warning in planned["warnings"]:
        ERRORS.print(f"[yellow]![/] {escape(warning)}")


def _training_table(training: dict[str, Any]) -> Table:
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
    table.add_row(
        "tokens", f"{quantity(training['tokens'])} in {training['steps']:,} steps of {training['tokens_per_step']:,}"
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
    if training["pipeline_bubble"]:
        table.add_row("pipeline bubble", f"{training['pipeline_bubble']:.1%}")
    table.add_row("time", f"{duration(training['seconds'])} at {training['tokens_per_second']:,.0f} tokens/s")
    table.add_row(
        "",
        f"[dim]if each rank is one {assumed['device']} of {quantity(assumed['peak_flops'], 'FLOP/s')} at {assumed['utilisation']:.0%} ({assumed['source']})[/]",
    )
    return table


def _parameters(count: float) -> str:
    """1026.4B rather than 1.03T: model sizes are told apart by their billions."""
    return f"{count / 1e9:.1f}B" if count >= 1e12 else quantity(count)
