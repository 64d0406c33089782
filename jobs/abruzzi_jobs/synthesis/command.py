"""`abruzzi tools`: makes catalogues of tools. The heavy imports wait until a command runs: every start of `abruzzi` loads this module."""

from __future__ import annotations

import asyncio
import difflib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from abruzzi.contracts.errors import AbruzziError

app = typer.Typer(help="Make and read catalogues of tools for agents.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="Folder of the catalogue.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(
    "import", epilog="Example: abruzzi tools import ./real-tools --server mcp-server-time --server mcp-server-git"
)
def import_(
    folder: Folder,
    server: Annotated[list[str] | None, typer.Option(help="A shipped server; all of them by default.")] = None,
    servers_root: Annotated[Path | None, typer.Option(help="Where environments of servers are kept.")] = None,
    as_json: AsJson = False,
) -> None:
    """Start tool servers (MCP) in boxes without network, take what they offer, call each once."""
    from abruzzi_jobs.synthesis.catalogue import write_catalogue
    from abruzzi_jobs.synthesis.importer import import_servers
    from abruzzi_jobs.synthesis.servers import shipped

    known = shipped()
    for name in server or ():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Shipped are: {', '.join(known)}."
            raise AbruzziError("unknown_server", f"There is no shipped tool server {name!r}.", hint=hint)
    if folder.exists() and any(folder.iterdir()):
        raise AbruzziError(
            "conflict", f"{folder}: there is something already.", hint="Choose another name.", status=409
        )
    chosen = [known[name] for name in server or known]
    imported = asyncio.run(import_servers(chosen, root=servers_root))
    servers = [asdict(record) for record in imported.servers]
    manifest = write_catalogue(folder, imported.tools, servers=servers, quarantined=imported.quarantined)
    if as_json:
        _print(json.dumps(manifest, indent=1))
        return
    for record in imported.servers:
        answer = " ".join((record.call or {}).get("answer", "no call known").split())
        _print(f"{record.name} {record.version}  {record.tools} tools  {record.licence}  {answer[:60]}")
    for fault in imported.quarantined:
        _print(f"{fault['server']} {fault['version']}  quarantined: {fault['reason']}")
    _print(f"{manifest['tools']} tools of {len(servers)} servers in {folder}")


@app.command("evolve", epilog="Example: abruzzi tools evolve ./synthetic-tools --seed 7")
def evolve(
    folder: Folder,
    seed: Annotated[int, typer.Option(help="Which facets the applications grow.")] = 0,
    generations: Annotated[int, typer.Option(min=0, max=12, help="How often each application grows.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Make synthetic tools: domains, their applications, the tools of each, near-duplicates dropped."""
    from abruzzi_jobs.synthesis.catalogue import write_catalogue
    from abruzzi_jobs.synthesis.embedding import EMBEDDER, NEAR, distinct
    from abruzzi_jobs.synthesis.evolution import GENERATOR, synthetic_tools

    _refuse_taken(folder)
    made = synthetic_tools(seed, generations)
    kept, dropped = distinct(made)
    origin = {"generator": GENERATOR, "is_llm": False, "seed": seed, "generations": generations}
    duplicates = {"embedder": EMBEDDER, "near": NEAR, "made": len(made), "dropped": dropped}
    manifest = write_catalogue(folder, kept, **origin, duplicates=duplicates)
    if as_json:
        _print(json.dumps(manifest, indent=1))
        return
    applications = len(manifest["sources"])
    domains = len({source.split("/")[0] for source in manifest["sources"]})
    _print(f"{len(kept)} tools of {applications} applications in {domains} domains in {folder}")
    _print(f"{len(dropped)} of {len(made)} dropped as near-duplicates (cosine {NEAR} or more)")


@app.command("list", epilog="Example: abruzzi tools list ./real-tools")
def list_(folder: Folder, as_json: AsJson = False) -> None:
    """The tools of a catalogue, one a line."""
    from abruzzi_jobs.synthesis.catalogue import read_catalogue

    for tool in read_catalogue(folder):
        if as_json:
            _print(tool.model_dump_json(exclude_defaults=True))
        else:
            first = tool.description.strip().split("\n")[0]
            _print(f"{tool.source}  {tool.name}  {first[:100]}")


def _refuse_taken(folder: Path) -> None:
    """Before the work, not after it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AbruzziError(
            "conflict", f"{folder}: there is something already.", hint="Choose another name.", status=409
        )


def _print(text: Any) -> None:
    sys.stdout.write(f"{text}\n")
