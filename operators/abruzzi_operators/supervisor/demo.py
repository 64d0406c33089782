"""`abruzzi demo`: the whole platform on this machine, a small Kimi K2 trained on real text, and a report."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import typer

from abruzzi.cli.report import print_report
from abruzzi.cli.run import follow
from abruzzi.cli.session import OUTPUT, JsonOption, SetOption, absolute_sources, overrides, print_json
from abruzzi.client import Client
from abruzzi.client.profile import home as default_home
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.toml import load_recipe
from abruzzi_operators.supervisor.embedded import EmbeddedPlatform
from abruzzi_operators.supervisor.home import read_up


def demo(
    recipe: Annotated[Path | None, typer.Option(help="By default recipes/tiny.toml.")] = None,
    assign: SetOption = None,
    home: Annotated[
        Path | None, typer.Option(help="State of the platform; by default $ABRUZZI_HOME or ~/.abruzzi.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the dashboard; 0: a free one.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Start the platform, train a small Kimi K2 on real text, show a report. On a terminal the dashboard then stays up until Ctrl-C.

    Example: abruzzi demo --home /tmp/demo
    """
    path = recipe or _shipped_recipe()
    assigned = overrides(assign)
    text = path.read_text()
    assigned |= absolute_sources(load_recipe(text, assigned, file=str(path)), path.parent)
    stays = not as_json and OUTPUT.is_terminal and os.environ.get("CI", "").lower() not in ("1", "true")
    _end_in_good_order()
    where = (home or default_home()).expanduser()
    with _platform(where, port) as (url, token, started_here):
        # A file or a CI log is read by others than whoever sits at a terminal: it gets the way to the token only.
        key = f"/#token={token}" if OUTPUT.is_terminal else f"  (the token is in {where / 'token'})"
        if not as_json:
            OUTPUT.print(f"Dashboard  [bold]{url}{key}[/]\n", soft_wrap=True)
        with Client(url, token, retry_seconds=60.0) as connection:
            run = connection.runs.submit(text, assigned)
            code = follow(connection, run.id, quiet=as_json)
            if as_json:
                print_json(connection.runs.get(run.id))
            elif code == 0:
                print_report(connection, run.id)
            if stays and started_here:
                OUTPUT.print(
                    f"\nThe dashboard stays up: [bold]{connection.run_page(run.id)}[/]  Ctrl-C ends it.", soft_wrap=True
                )
                _until_interrupted()
    raise SystemExit(code)


@contextmanager
def _platform(home: Path, port: int) -> Iterator[tuple[str, str, bool]]:
    """(url, token, started here): the platform that runs in `home`, or one that lives as long as the block."""
    running = _running(home)
    if running:
        yield *running, False
        return
    platform = EmbeddedPlatform(home, port=port)
    with OUTPUT.status(f"Starting PostgreSQL, API and controller in {home}"):
        platform.start()
    with platform:
        yield platform.url, platform.token, True


def _running(home: Path) -> tuple[str, str] | None:
    up = read_up(home)
    if up is None:
        return None
    url = str(up["url"]).rstrip("/")
    try:
        token = (home / "token").read_text().strip()
        return (url, token) if httpx.get(f"{url}/readyz", timeout=2.0).is_success else None
    except (FileNotFoundError, httpx.TransportError):
        return None


def _end_in_good_order() -> None:
    """A closed terminal and a plain `kill` end the block as Ctrl-C does, so that the platform is stopped and the run saved."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def _shipped_recipe() -> Path:
    """recipes/tiny.toml below the working directory, or of the checkout that this is installed from."""
    for folder in (Path.cwd(), *Path(__file__).resolve().parents):
        if (folder / "recipes" / "tiny.toml").is_file():
            return folder / "recipes" / "tiny.toml"
    raise AbruzziError(
        "no_recipe",
        "recipes/tiny.toml is not below this folder.",
        hint="Run this in the checkout, or name a recipe with --recipe.",
    )


def _until_interrupted() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        OUTPUT.print("\nStopping.")
