"""`abruzzi login`: remember a platform."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from abruzzi.cli.session import OUTPUT, JsonOption, print_json
from abruzzi.client import Client
from abruzzi.client.profile import save_profile


def login(
    url: Annotated[str, typer.Argument(help="Address of the platform.")],
    token: Annotated[
        str,
        typer.Option(
            prompt=True,
            hide_input=True,
            envvar="ABRUZZI_TOKEN",
            help="From the tokens page or `abruzzi tokens create`; asked for when absent.",
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Check a token and save it, readable by you alone."""
    with Client(url, token, retry_seconds=3.0) as connection:
        next(connection.runs.list(), None)
    path = save_profile(url.rstrip("/"), token)
    if as_json:
        print_json({"url": url, "profile": str(path)})
    else:
        OUTPUT.print(f"[green]✓[/] {escape(url)}; saved in {escape(str(path))}")
