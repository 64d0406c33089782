"""`abruzzi redteam …`: attack a model, look at how often it held, take the result to promptfoo and back. Only `show` of an artifact asks a platform."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="How often a model holds when it is attacked.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, stable between versions.")]


@app.callback()
def redteam() -> None:
    """How often a model holds when it is attacked."""


@app.command(epilog="Example: abruzzi redteam run recipes/redteam-smollm2.toml --out safety")
def run(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A recipe with a stage of kind redteam, or - for standard input.")
    ],
    out: Annotated[Path, typer.Option(help="Folder; what is there of an earlier try is gone on from.")],
    stage: Annotated[str | None, typer.Option(help="Which, where there are several.")] = None,
    assign: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one value. Repeatable.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder of a pulled checkpoint, for endpoints that serve one of the recipe's.")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Folder of the tokenizer that it was trained with.")] = None,
    as_json: AsJson = False,
) -> None:
    """Attack the target of a recipe's redteam stage from here, without a platform."""
    # The command line loads this module at every start: what it needs comes when it is called.
    from abruzzi_jobs.safety.local import RESULT, run_recipe
    from abruzzi_jobs.safety.shown import print_matrix, read_folder

    run_recipe(recipe, assign or [], stage, out, {"checkpoint": checkpoint, "tokenizer": tokenizer})
    print_matrix(read_folder(out / RESULT), as_json=as_json)


@app.command(epilog="Example: abruzzi redteam show safety/result")
def show(
    what: Annotated[
        str, typer.Argument(metavar="FOLDER|ARTIFACT", help="A folder (of run, or pulled), or the id of an artifact.")
    ],
    as_json: AsJson = False,
) -> None:
    """The matrix: passes by plugin and strategy, with intervals. Of an artifact with what people have said."""
    from abruzzi_jobs.safety.shown import print_matrix, read_artifact, read_folder

    print_matrix(read_folder(Path(what)) if Path(what).is_dir() else read_artifact(what), as_json=as_json)


@app.command(name="export", epilog="Example: abruzzi redteam export safety/result --to promptfoo.json")
def export_results(
    folder: Annotated[Path, typer.Argument(help="Of run, or a pulled artifact.")],
    to: Annotated[Path, typer.Option(help="File to write.")],
    as_json: AsJson = False,
) -> None:
    """Write the results as a promptfoo result file. It holds what was asked: keep it as you keep the rows."""
    from abruzzi_jobs.safety.shown import export_folder

    export_folder(folder, to, as_json=as_json)


@app.command(name="import", epilog="Example: abruzzi redteam import results.json --out from-promptfoo")
def import_results(
    file: Annotated[Path, typer.Argument(help="A promptfoo result file.")],
    out: Annotated[Path, typer.Option(help="Folder to write; must be empty or new.")],
    as_json: AsJson = False,
) -> None:
    """Read a promptfoo result file into rows and a matrix of ours. Results outside the grid are counted."""
    from abruzzi_jobs.safety.shown import import_file, print_matrix

    print_matrix(import_file(file, out), as_json=as_json)


@app.command(epilog="Example: abruzzi redteam plugins --json")
def plugins(as_json: AsJson = False) -> None:
    """The grid: plugins, sub-plugins, what an answer must not do, and what promptfoo calls them."""
    from abruzzi_jobs.safety.shown import print_plugins

    print_plugins(as_json=as_json)
