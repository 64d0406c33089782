"""`abruzzi trajectories`: reads and replays what a `synthesize` stage made. The heavy imports wait until a command runs."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.synthesis.trajectories.printing import show

if TYPE_CHECKING:
    from abruzzi_jobs.synthesis.trajectories.replay import Replayed

app = typer.Typer(help="Read and replay trajectories of agents.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="Folder of a pulled `trajectories` artifact.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def trajectories() -> None:
    """Read and replay trajectories of agents."""


app.command(epilog="Example: abruzzi trajectories show ./trajectories --sample 3 --fate kept")(show)


@app.command(epilog="Example: abruzzi trajectories replay ./trajectories --tools ./tools")
def replay(
    folder: Folder,
    tools: Annotated[Path, typer.Option(help="Folder of the `tools` artifact of the same stage.")],
    row: Annotated[list[str] | None, typer.Option(help="Only the row of this id. Repeatable.")] = None,
    simulated: Annotated[
        bool, typer.Option("--simulated", help="Only worlds: start no tool servers, pass over what needs them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make every call of every trajectory again, on fresh worlds and servers, and compare answers, states and verdicts. Exit code 1 where one differs."""
    outcomes = asyncio.run(_replay(folder, tools, set(row or ()), simulated=simulated))
    told = _told(outcomes)
    if as_json:
        sys.stdout.write(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    else:
        for outcome in outcomes:
            for what in outcome.differs:
                sys.stdout.write(f"{outcome.id}  {what}\n")
        sys.stdout.write(
            f"{told['same']} of {told['replayed']} replayed trajectories are the same, {told['calls']} calls made again; "
            f"{told['not_compared']} answers depend on clock or chance and were not compared; {told['skipped']} skipped\n"
        )
    if told["same"] < told["replayed"]:
        raise SystemExit(1)


async def _replay(folder: Path, tools: Path, ids: set[str], *, simulated: bool) -> list[Replayed]:
    from abruzzi_jobs.data.row_shards import read_rows
    from abruzzi_jobs.synthesis.catalogue import read_catalogue, read_manifest
    from abruzzi_jobs.synthesis.trajectories.engine import Machine
    from abruzzi_jobs.synthesis.trajectories.programs import Programs
    from abruzzi_jobs.synthesis.trajectories.replay import replay as replayed
    from abruzzi_jobs.synthesis.trajectories.rows import NOUN
    from abruzzi_jobs.synthesis.trajectories.servers import ServerPools, boxed_kinds, is_deterministic
    from abruzzi_jobs.synthesis.trajectories.tools import chosen_servers

    catalogue = {(tool.source, tool.name): tool for tool in read_catalogue(tools)}
    rows = [row for row in read_rows(folder, NOUN) if not ids or row["id"] in ids]
    if missing := ids - {row["id"] for row in rows}:
        raise AbruzziError("not_found", f"{folder}: there is no row {min(missing)!r}.")
    if simulated:
        return [await replayed(row, catalogue, Machine(), is_deterministic) for row in rows]
    names = [server["name"] for server in read_manifest(tools).get("servers", ())]
    kinds = await asyncio.to_thread(boxed_kinds, chosen_servers(names))
    async with ServerPools(kinds) as servers:
        machine = Machine(servers=servers, programs=Programs())
        return [await replayed(row, catalogue, machine, is_deterministic) for row in rows]


def _told(outcomes: Sequence[Replayed]) -> dict[str, Any]:
    done = [outcome for outcome in outcomes if not outcome.skipped]
    return {
        "replayed": len(done),
        "same": sum(outcome.same for outcome in done),
        "skipped": sum(bool(outcome.skipped) for outcome in outcomes),
        "calls": sum(outcome.calls for outcome in done),
        "not_compared": sum(outcome.not_compared for outcome in done),
        "differs": {outcome.id: outcome.differs for outcome in done if outcome.differs},
    }
