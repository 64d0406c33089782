"""`abruzzi rewrites`: reads what a `rephrase` stage made. Needs no running platform."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Read rewrites beside their sources.", no_args_is_help=True)


@app.callback()
def rewrites() -> None:
    """Read rewrites beside their sources."""


@app.command(epilog="Example: abruzzi rewrites page ./corpus --fate number --count 5 > faults.md")
def page(
    folder: Annotated[Path, typer.Argument(help="Folder of a pulled `corpus` artifact of a rephrase stage.")],
    count: Annotated[int, typer.Option(min=1, help="How many, drawn at random.")] = 10,
    fate: Annotated[str | None, typer.Option(help="Only these: kept, number, entity, claim, …")] = None,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print rewrites as Markdown, source and rewrite side by side, faults marked."""
    # The command line loads this module at every start: what it needs comes when it is called.
    from abruzzi_jobs.data.row_shards import read_described, read_rows
    from abruzzi_jobs.rephrase.output import NOUN
    from abruzzi_jobs.rephrase.page import page as as_page
    from abruzzi_jobs.rephrase.page import sampled

    rows = sampled(read_rows(folder, NOUN), count, fate=fate, seed=seed)
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
        return
    sys.stdout.write(as_page(rows, read_described(folder, NOUN)))
