"""How `abruzzi plan` shows a training stage: facts, the table by pipeline rank, and the sweep."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from abruzzi.cli.session import ERRORS, OUTPUT, duration, quantity

_BAR_CELLS = 16


def print_training(training: dict[str, Any], placed: dict[str, Any] | None) -> None:
    layout = training["layout"]
    OUTPUT.print(_facts(training, placed))
    if "by_rank" in layout and layout["pp"] > 1:
        OUTPUT.print()
        OUTPUT.print(_by_rank(layout, training["assumptions"]["memory_bytes"]))
    if "sweep" in layout:
        OUTPUT.print()
        _print_sweep(layout["sweep"], layout)


def print_refusals(planned: dict[str, Any]) -> bool:
    """Why layouts cannot be; True if any cannot."""
    found = False
    for stage in planned["stages"]:
        layout = stage.get("training", {}).get("layout", {})
        for reason in layout.get("refusals", ()):
            found = True
            ERRORS.print(f"[red]✗[/] stage.{stage['id']}: {escape(reason)}", soft_wrap=True)
        if layout.get("would_fit"):
            ERRORS.print(f"  [dim]what would fit:[/] {escape(layout['would_fit'])}", soft_wrap=True)
    return found


def model_size(count: float) -> str:
    """1026.4B rather than 1.03T: model sizes are told apart by their billions."""
    return f"{count / 1e9:.1f}B" if count >= 1e12 else quantity(count)


def _facts(training: dict[str, Any], placed: dict[str, Any] | None) -> Table:
    parameters, assumed, layout = training["parameters"], training["assumptions"], training["layout"]
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row(
        "parameters", f"{model_size(parameters['total'])} total, {quantity(parameters['active'])} active a token"
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
    if layout["ranks"] > 1:
        width = f"{layout['nodes']} nodes of {layout['ranks_per_node']}: " if layout["nodes"] > 1 else ""
        table.add_row(
            "layout",
            f"{width}PP {layout['pp']} x {layout['vpp']} chunks, {layout['data_ranks']} data ranks, EP {layout['ep']} x EDP {layout['edp']}, "
            f"{layout['microbatches']:,} micro-batches of {layout['micro_tokens']:,} tokens",
        )
    if "step" in layout:
        _add_step(table, training, placed)
    table.add_row(
        "",
        f"[dim]each rank one {assumed['device']} of {quantity(assumed['peak_flops'], 'FLOP/s')} ({assumed['source']})[/]",
    )
    return table


def _add_step(table: Table, training: dict[str, Any], placed: dict[str, Any] | None) -> None:
    layout = training["layout"]
    step, kept, ranks, total = layout["step"], layout["activations"], layout["by_rank"], layout["total"]
    middle, fullest = ranks[len(ranks) // 2], max(ranks, key=lambda r: r["device_bytes"])
    one = len(ranks) == 1
    where = "" if one else f" on a middle pipeline rank, {quantity(ranks[0]['state_bytes'], 'B')} on the first"
    table.add_row("states", f"{quantity(middle['state_bytes'], 'B')}{where} (parameters and gradients)")
    table.add_row(
        "optimizer",
        f"{quantity(max(r['optimizer_bytes'] for r in ranks), 'B')} a rank at most, on the {fullest['optimizer_on']}; "
        f"{duration_fine(step['optimizer']['seconds'])} a step, Newton-Schulz {duration_fine(step['optimizer']['newton_schulz'])} of it",
    )
    saved = (
        f" (of {kept['bytes_per_token_layer_kept'] / 1024:.0f})"
        if kept["bytes_per_token_layer"] < kept["bytes_per_token_layer_kept"]
        else ""
    )
    table.add_row(
        "activations",
        f"{kept['bytes_per_token_layer'] / 1024:.0f} KiB{saved} a token and layer, {quantity(kept['chunk_bytes'], 'B')} a chunk; "
        f"the first rank has {ranks[0]['in_flight_chunks']} in flight: {quantity(ranks[0]['in_flight_bytes'], 'B')}",
    )
    if kept["offload_bytes_per_second"]:
        table.add_row(
            "offload",
            f"{quantity(kept['offload_bytes_per_second'], 'B/s')} each way of {quantity(training['assumptions']['rates']['host_copy'], 'B/s')}; "
            f"{quantity(ranks[0]['resident_bytes'], 'B')} of activations stay on the first rank",
        )
    if layout["ep"] > 1:
        sent = step["exchange"]
        table.add_row(
            "all-to-all",
            f"{sent['bytes'] / 1024:.0f} KiB a token, layer and way ({sent['bytes_without_dedup'] / 1024:.0f} without de-duplication: a token reaches "
            f"{sent['ranks_reached']:.1f} of {layout['ep']} ranks); fills {step['all_to_all_share']:.0%} of the compute that it hides under",
        )
    room = (placed or {}).get("memory_there") or training["assumptions"]["memory_bytes"]
    of_room = f" of {quantity(room, 'B')}" if room else ""
    host = max(r["host_bytes"] for r in ranks) * min(layout["ranks_per_node"], layout["ranks"])
    table.add_row(
        "memory",
        f"{quantity(fullest['device_bytes'], 'B')}{of_room} on the fullest rank"
        + (f"; {quantity(host, 'B')} of a node's own" if host else ""),
    )
    if layout["pp"] > 1:
        table.add_row(
            "pipeline", f"bubble {step['bubble']:.1%} if all stages were equal; {step['idle']:.1%} idle as simulated"
        )
    saves = step["checkpoint"]
    table.add_row(
        "checkpoint",
        f"{quantity(saves['bytes'], 'B')}; training waits {duration_fine(saves['stall_seconds'])} for it, it is written in {duration_fine(saves['write_seconds'])}",
    )
    rate = f"{step['tokens_per_second']:,.0f} tokens/s" + (
        "" if layout["ranks"] == 1 else f", {step['tokens_per_second_per_rank']:,.0f} a rank"
    )
    table.add_row("step", f"{duration_fine(step['seconds'])}: {rate}, {step['mfu']:.1%} MFU")
    if total is not None:
        money = f", {total['cost']:,.0f} at {total['price']:g} an hour" if total["cost"] is not None else ""
        hours = (
            "" if training["assumptions"]["memory_bytes"] is None else f", {total['gpu_hours']:,.0f} GPU-hours{money}"
        )
        table.add_row("time", f"[bold]{duration(total['seconds'])}[/]{hours}")


def _by_rank(layout: dict[str, Any], room: int | None) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("PP rank", "layers", "parameters", "states", "optimizer", "in flight", "on device", "on host"):
        table.add_column(name, justify="right")
    table.add_column(f"of {quantity(room, 'B')}" if room else "", justify="left")
    for rank in layout["by_rank"]:
        flying = f"{rank['in_flight_chunks']} = {quantity(rank['in_flight_bytes'], 'B')}"
        table.add_row(
            str(rank["rank"]),
            "+".join(str(n) for n in rank["layers"]),
            quantity(rank["parameters"]),
            quantity(rank["state_bytes"], "B"),
            f"{quantity(rank['optimizer_bytes'], 'B')} {rank['optimizer_on']}",
            flying,
            quantity(rank["device_bytes"], "B"),
            quantity(rank["host_bytes"], "B") if rank["host_bytes"] else "–",
            _bar(rank, room) if room else "",
        )
    return table


def _bar(rank: dict[str, Any], room: int) -> str:
    """States, optimizer, activations, the rest; what is over in red."""
    optimizer = rank["optimizer_bytes"] if rank["optimizer_on"] == "device" else 0
    rest = rank["device_bytes"] - rank["state_bytes"] - optimizer - rank["resident_bytes"]
    parts = (
        (rank["state_bytes"], "blue"),
        (optimizer, "magenta"),
        (rank["resident_bytes"], "green"),
        (rest, "bright_black"),
    )
    cells, drawn, reached = [], 0, 0.0
    for size, colour in parts:
        reached += size
        until = min(round(reached / room * _BAR_CELLS), _BAR_CELLS)
        cells.append(f"[{colour}]{'█' * (until - drawn)}[/]" if until > drawn else "")
        drawn = max(drawn, until)
    return "".join(cells) + f"[dim]{'·' * (_BAR_CELLS - drawn)}[/]" + ("[red]▶[/]" if reached > room else "")


def _print_sweep(sweep: dict[str, Any], layout: dict[str, Any]) -> None:
    refused = sum(sweep["refused"].values())
    OUTPUT.print(
        f"[bold]{sweep['tried']} layouts of {layout['ranks']} ranks[/], {refused} of them refused; the fastest of the others:"
        if sweep["ranked"]
        else f"[bold]{sweep['tried']} layouts of {layout['ranks']} ranks[/], none fits"
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("PP", "VPP", "EP", "activations", "optimizer", "memory", "bubble", "idle", "step", "MFU", "time"):
        table.add_column(name, justify="left" if name in ("activations", "optimizer") else "right")
    for one in sweep["ranked"]:
        same = all(one[key] == layout[key] for key in ("pp", "vpp", "ep"))
        table.add_row(
            str(one["pp"]),
            str(one["vpp"]),
            str(one["ep"]),
            one["activations"],
            one["optimizer_on"],
            quantity(one["device_bytes"], "B"),
            f"{one['bubble']:.1%}",
            f"{one['idle']:.1%}",
            duration_fine(one["seconds"]),
            f"{one['mfu']:.1%}",
            "–" if one["days"] is None else duration(one["days"] * 86_400),
            style="bold" if same else "",
        )
    if sweep["ranked"]:
        OUTPUT.print(table)


def duration_fine(seconds: float) -> str:
    """Below a minute with three digits."""
    if seconds >= 60:
        return duration(seconds)
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
