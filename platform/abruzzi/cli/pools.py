"""`abruzzi pools …`: where ranks run, how full it is, who waits."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from abruzzi.cli.session import OUTPUT, JsonOption, age, client, duration, print_json
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.pool import Amounts, PoolOut, PoolSpec
from abruzzi.contracts.queue import QueueOut

app = typer.Typer(
    help="Pools: nodes of one flavor, with quota.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
PoolArgument = Annotated[str, typer.Argument(metavar="POOL", help="A pool's name.")]


@app.command("list", epilog="Example: abruzzi pools list")
def list_(as_json: JsonOption = False) -> None:
    """All pools: ranks that run and wait, quota and use."""
    with client() as connection:
        found = connection.pools.list()
    if as_json:
        print_json(found)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("pool", "kind", "flavor", "running", "waiting", "GPUs used", "quota", ""):
        table.add_column(column)
    for pool in found:
        used = f"{pool.status.used['nvidia.com/gpu']:g}" if "nvidia.com/gpu" in pool.status.used else "–"
        name = f"{pool.name} (default)" if pool.is_default else pool.name
        running, waiting = (f"{n} ranks" for n in (pool.running_ranks, pool.waiting_ranks))
        table.add_row(
            name, pool.spec.kind, escape(pool.spec.flavor or "–"), running, waiting, used, _amounts(pool.spec.quota), escape(pool.status.message)
        )  # fmt: skip
    OUTPUT.print(table)


@app.command(epilog="Example: abruzzi pools show h800")
def show(pool: PoolArgument, as_json: JsonOption = False) -> None:
    """One pool, whole."""
    with client() as connection:
        found = connection.pools.get(pool)
    print_json(found) if as_json else _print(found)


@app.command(epilog="Example: abruzzi pools queue h800")
def queue(
    pool: PoolArgument,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many of the queue's head.")] = 30,
    as_json: JsonOption = False,
) -> None:
    """Who waits, in which order, for what, and until when. Other projects' stages have no names."""
    with client() as connection:
        found = connection.pools.queue(pool, limit=limit)
    print_json(found) if as_json else _print_queue(found)


@app.command(epilog="Example: abruzzi pools apply h800.toml")
def apply(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A pool in TOML: name, kind, flavor, quota, …")],
    as_json: JsonOption = False,
) -> None:
    """Make a pool, or change it to what the file says."""
    spec = _read(file)
    with client() as connection:
        made = connection.pools.apply(spec)
    print_json(made) if as_json else OUTPUT.print(f"[green]✓[/] {made.name}: version {made.version}")


@app.command(epilog="Example: abruzzi pools delete h800")
def delete(pool: PoolArgument, as_json: JsonOption = False) -> None:
    """Remove a pool that no run uses."""
    with client() as connection:
        connection.pools.delete(pool)
    print_json({"deleted": pool}) if as_json else OUTPUT.print(f"[green]✓[/] {escape(pool)} is removed")


def _read(file: Path) -> PoolSpec:
    try:
        return PoolSpec.model_validate(tomllib.loads(file.read_text()))
    except OSError as error:
        raise AbruzziError("no_file", f"{file}: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise AbruzziError("bad_pool", f"{file}: not TOML: {error}.") from error
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, d['loc'])) or '(pool)'}: {d['msg']}" for d in error.errors()]
        known = f"Keys: {', '.join(PoolSpec.model_fields)}."
        raise AbruzziError("bad_pool", f"{file}: " + "; ".join(lines), hint=known) from error


def _print(pool: PoolOut) -> None:
    OUTPUT.print(f"[bold]{pool.name}[/]  {pool.spec.kind}  {escape(pool.spec.flavor)}")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column()
    table.add_row(
        "ranks", f"{pool.running_ranks} running, {pool.waiting_ranks} waiting; {pool.spec.ranks_per_node} a node"
    )
    table.add_row("a rank gets", _amounts(pool.spec.rank))
    table.add_row("quota", _amounts(pool.spec.quota))
    for name, amount in pool.status.used.items():
        borrowed = pool.status.borrowed.get(name)
        table.add_row(f"used {name}", f"{amount:g}" + (f", {borrowed:g} of it borrowed" if borrowed else ""))
    table.add_row("workloads", f"{pool.status.admitted} admitted, {pool.status.pending} pending")
    if pool.status.message:
        table.add_row("status", escape(pool.status.message))
    OUTPUT.print(table)


def _print_queue(found: QueueOut) -> None:
    if not found.items:
        OUTPUT.print(f"Nothing waits in pool {found.pool}.")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("#", "run", "stage", "ranks", "asks for", "waits", "for", "until about"):
        table.add_column(column)
    for entry in found.items:
        run = f"{entry.run_id} {entry.run_name}" if entry.mine else "another project's"
        asked = _amounts(Amounts(cpus=entry.cpus, memory=entry.memory, gpus=entry.gpus))
        until = f"in {duration(entry.eta_seconds)}" if entry.eta_seconds is not None else "no estimate"
        why = entry.code.value.removeprefix("waits_for_").removeprefix("waits_").replace("_", " ")
        table.add_row(
            str(entry.position), escape(run), escape(entry.stage_id or "–"), str(entry.ranks), asked, age(entry.since), why, until
        )  # fmt: skip
    OUTPUT.print(table)
    more = f" {found.length - len(found.items)} more are behind them." if found.length > len(found.items) else ""
    OUTPUT.print(f"[dim]{found.order_note}{more}[/]")


def _amounts(amounts: Amounts | None) -> str:
    if amounts is None:
        return "none"
    gpus = f"{amounts.gpus} GPUs, " if amounts.gpus else ""
    return f"{gpus}{amounts.cpus:g} CPUs, {decimal(amounts.memory)}"
