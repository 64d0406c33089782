"""`abruzzi checkpoints …`: models as others publish them, looked at and brought in. Needs no running platform; the heavy imports wait until a command runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Models that others have published as Hugging Face folders.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, stable between versions.")]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="It holds config.json and the weights, or their index.")]


@app.command(epilog="Example: abruzzi checkpoints inspect ./Kimi-K2-Instruct")
def inspect(
    folder: Folder,
    as_json: AsJson = False,
) -> None:
    """Is it a model of ours, and is all of it there? Reads no weights: config.json and the index will do. Exit code 1 where it is not."""
    from abruzzi_jobs.export import inspect_huggingface
    from abruzzi_jobs.export.incoming import say_report

    report = inspect_huggingface(folder)
    say_report(folder, report, as_json=as_json)
    if report.faults:
        raise SystemExit(1)


@app.command("import", epilog="Example: abruzzi checkpoints import ./Moonlight-16B-A3B ./moonlight")
def import_(
    folder: Folder,
    to: Annotated[
        Path, typer.Argument(metavar="OUT", help="A new folder: model.safetensors, state.json, the tokenizer's files.")
    ],
    as_json: AsJson = False,
) -> None:
    """Weights and configuration in our layout, as `abruzzi artifacts pull` gives them. FP8 becomes bfloat16. Takes the memory of the whole model."""
    from abruzzi_jobs.export.incoming import import_folder

    written = import_folder(folder, to)
    if as_json:
        _print(json.dumps({"folder": str(to), "files": {path.name: size for path, size in written}}, indent=1))
        return
    for path, size in written:
        _print(f"{size:>16,}  {path}")


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
