"""`abruzzi nodes …`: the machines that ranks run on, how they are, and taking them out of use and back."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from abruzzi.cli.session import OUTPUT, JsonOption, age, client, print_json
from abruzzi.contracts.node import NodeOut, NodeState

app = typer.Typer(
    help="Nodes: the machines that ranks run on.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
NodeArgument = Annotated[str, typer.Argument(metavar="NODE", help="A node's name.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for the audit log and for whoever wonders.")]
_COLOURS = {NodeState.READY: "green", NodeState.LOST: "red", NodeState.QUARANTINED: "red"}


@app.command("list", epilog="Example: abruzzi nodes list --pool h800 --state quarantined")
def list_(
    pool: Annotated[str | None, typer.Option("--pool", help="Only those of a pool.")] = None,
    state: Annotated[NodeState | None, typer.Option("--state", help="Only those in a state.")] = None,
    as_json: JsonOption = False,
) -> None:
    """All nodes: state, GPUs, what runs there, what speaks against it."""
    with client() as connection:
        found = connection.nodes.list(pool=pool, state=state)
    if as_json:
        print_json(found)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("node", "pool", "state", "GPUs used", "attempts", "score", "heard", ""):
        table.add_column(column)
    for node in found.items:
        attempts = str(len(node.attempts) + node.hidden_attempts)
        table.add_row(
            escape(node.name), node.pool or "–", _state(node), _gpus(node), attempts, f"{node.lemon_score:.1f}",
            _heard(node), escape(node.reason),
        )  # fmt: skip
    if found.items:
        OUTPUT.print(table)
    if found.note:
        OUTPUT.print(escape(found.note), style="yellow")


@app.command(epilog="Example: abruzzi nodes show h800-0007")
def show(node: NodeArgument, as_json: JsonOption = False) -> None:
    """One node, whole: conditions, taints, faults and what runs there."""
    with client() as connection:
        found = connection.nodes.get(node)
    print_json(found) if as_json else _print(found)


@app.command(epilog='Example: abruzzi nodes drain h800-0007 --reason "fan"')
def drain(node: NodeArgument, reason: ReasonOption, as_json: JsonOption = False) -> None:
    """Take it out of use: nothing new is placed there, its stages save and go on elsewhere."""
    with client() as connection:
        found = connection.nodes.drain(node, reason)
    print_json(found) if as_json else OUTPUT.print(
        f"[green]✓[/] {escape(node)} is being drained. `abruzzi nodes show {escape(node)}` says when nothing is left on it."
    )


@app.command("return", epilog='Example: abruzzi nodes return h800-0007 --reason "new fan"')
def return_(node: NodeArgument, reason: ReasonOption, as_json: JsonOption = False) -> None:
    """Take it into use again after a drain or a quarantine; its faults so far are forgotten."""
    with client() as connection:
        found = connection.nodes.return_(node, reason)
    print_json(found) if as_json else OUTPUT.print(f"[green]✓[/] {escape(node)} takes part again")


def _print(node: NodeOut) -> None:
    OUTPUT.print(f"[bold]{escape(node.name)}[/]  {_state(node)}  {escape(node.reason)}")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row("pool", node.pool or "none")
    table.add_row("has", f"{node.cpus:g} CPUs, {decimal(node.memory)}, GPUs {_gpus(node)}")
    table.add_row("last heard", _heard(node))
    for level, value in node.topology.items():
        table.add_row(escape(level), escape(value))
    for word, said in (("drain", node.drain), ("returned", node.returned)):
        if said:
            table.add_row(word, f"{said.at:%Y-%m-%d %H:%M} by {escape(said.by)}: {escape(said.reason)}")
    for condition in node.conditions:
        if condition.is_bad:
            table.add_row(
                escape(condition.type), escape(f"{condition.status}: {condition.message or condition.reason}")
            )
    for taint in node.taints:
        value = f"={taint.value}" if taint.value else ""
        table.add_row("taint", escape(f"{taint.key}{value}:{taint.effect}") + (" (ours)" if taint.is_ours else ""))
    for attempt in node.attempts:
        table.add_row("attempt", f"{attempt.attempt_id}, ranks {', '.join(map(str, attempt.ranks))}")
    if node.hidden_attempts:
        table.add_row("attempts", f"{node.hidden_attempts} of other projects")
    for fault in node.faults:
        table.add_row("fault", f"{fault.at:%Y-%m-%d %H:%M} {fault.kind}: {escape(fault.sentence)}")
    table.add_row("score", f"{node.lemon_score:.2f}")
    OUTPUT.print(table)


def _state(node: NodeOut) -> str:
    return f"[{_COLOURS.get(node.state, 'yellow')}]{node.state}[/]"


def _gpus(node: NodeOut) -> str:
    gpus = node.gpus
    if not gpus.total:
        return "–"
    sick = f", {gpus.total - gpus.healthy} not offered" if gpus.healthy < gpus.total else ""
    return f"{gpus.used} of {gpus.total}{sick}"


def _heard(node: NodeOut) -> str:
    return f"{age(node.heartbeat_at)} ago" if node.heartbeat_at else "–"
