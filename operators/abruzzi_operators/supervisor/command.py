"""`abruzzi up`."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from abruzzi.cli.session import JsonOption
from abruzzi.kit.process import hide_environment
from abruzzi_operators.supervisor.address import DEFAULT_PORT
from abruzzi_operators.supervisor.supervise import Supervisor


def up(
    home: Annotated[
        Path, typer.Option(envvar="ABRUZZI_HOME", help="Directory of all state; one platform at a time runs in it.")
    ] = Path("~/.abruzzi"),
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help=f"0: a free one. By default the last one, or {DEFAULT_PORT}.", show_default=False
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Anything but loopback lets other machines knock.")
    ] = "127.0.0.1",
    as_json: JsonOption = False,
) -> None:
    """Run the platform on this machine until Ctrl-C: PostgreSQL, API with dashboard, controller.

    Example: abruzzi up --home ./state --port 0
    """
    hide_environment()
    if host not in ("127.0.0.1", "::1", "localhost"):
        typer.echo(f"Warning: {host} can be reached by other machines. The token is the only lock.", err=True)
    # What goes to a file or a CI log is read by others than whoever sits at a terminal.
    show_token = sys.stdout.isatty()
    asyncio.run(
        Supervisor(home, host=host, port=port, say=_say_json if as_json else typer.echo, show_token=show_token).run()
    )


def _say_json(text: str) -> None:
    typer.echo(json.dumps({"message": text}, ensure_ascii=False))
