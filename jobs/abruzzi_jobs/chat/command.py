"""`abruzzi endpoints …`: who would think for a recipe, asked before it runs. Needs no running platform."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Language models that a recipe's roles ask.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def endpoints() -> None:
    """Language models that a recipe's roles ask."""


@app.command(epilog="Example: abruzzi endpoints check recipes/tiny.toml --endpoint teacher")
def check(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe in TOML, or - for standard input.")],
    assign: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override one value, such as endpoint.teacher.model=other. Repeatable."
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--endpoint", metavar="NAME", help="Only these. Repeatable.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Folder of a pulled checkpoint, for endpoints that serve one of the recipe's.")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Folder of the tokenizer that it was trained with.")] = None,
    question: Annotated[str, typer.Option(help="What each is asked.")] = "What is the capital of France?",
    max_tokens: Annotated[int, typer.Option(min=1, help="Of the answer.")] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, stable between versions.")] = False,
) -> None:
    """Ask each endpoint of a recipe one question: does it answer, which model, how fast. Exit code 1 if one does not."""
    # The command line loads this module at every start: what it needs comes when it is called.
    from abruzzi_jobs.chat.check import check_recipe

    folders = {"checkpoint": checkpoint, "tokenizer": tokenizer}
    if not check_recipe(
        recipe,
        assign or [],
        only=only or [],
        folders=folders,
        question=question,
        max_tokens=max_tokens,
        as_json=as_json,
    ):
        raise SystemExit(1)
