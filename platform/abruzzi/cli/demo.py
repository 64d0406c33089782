"""`abruzzi demo`: the whole platform on this machine, a small Kimi K2 trained on real text, and a report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import httpx
import typer

from abruzzi.cli.report import print_report
from abruzzi.cli.run import follow
from abruzzi.cli.session import OUTPUT, SetOption, absolute_sources, overrides
from abruzzi.client import Client
from abruzzi.client.profile import home as default_home
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.toml import load_recipe

_STARTUP_SECONDS = 60.0


def demo(
    recipe: Annotated[Path | None, typer.Option(help="By default recipes/tiny.toml.")] = None,
    assign: SetOption = None,
    home: Annotated[
        Path | None, typer.Option(help="State of the platform; by default $ABRUZZI_HOME or ~/.abruzzi.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the dashboard; 0: a free one.")] = 0,
) -> None:
    """Start the platform, train a small Kimi K2 on real text, show a report. On a terminal the dashboard then stays up until Ctrl-C."""
    path = recipe or _shipped_recipe()
    assigned = overrides(assign)
    text = path.read_text()
    assigned |= absolute_sources(load_recipe(text, assigned, file=str(path)), path.parent)
    stays = OUTPUT.is_terminal and os.environ.get("CI", "").lower() not in ("1", "true")
    with _platform(home or default_home(), port) as (url, token, started_here):
        OUTPUT.print(f"Dashboard  [bold]{url}/#token={token}[/]\n", soft_wrap=True)
        with Client(url, token, retry_seconds=60.0) as connection:
            run = connection.runs.submit(text, assigned)
            code = follow(connection, run.id)
            if code == 0:
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
    home.mkdir(parents=True, exist_ok=True)
    running = _running(home)
    if running:
        yield *running, False
        return
    log = home / "logs" / "up.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "abruzzi.cli.main", "up", "--home", str(home), "--port", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        with OUTPUT.status(f"Starting PostgreSQL, API and controller in {home}"):
            running = _started(home, process, log)
        url, token = running
        yield url, token, True
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()


def _started(home: Path, process: subprocess.Popen[bytes], log: Path) -> tuple[str, str]:
    deadline = time.monotonic() + _STARTUP_SECONDS
    while (running := _running(home)) is None:
        if process.poll() is not None:
            raise AbruzziError("start_failed", f"The platform did not start: {_last_line(log)}", hint=f"See {log}")
        if time.monotonic() > deadline:
            raise AbruzziError(
                "start_failed", f"The platform did not answer within {_STARTUP_SECONDS:.0f} s.", hint=f"See {log}"
            )
        time.sleep(0.1)
    return running


def _running(home: Path) -> tuple[str, str] | None:
    try:
        url = json.loads((home / "up.json").read_text())["url"].rstrip("/")
        token = (home / "token").read_text().strip()
        return (url, token) if httpx.get(f"{url}/readyz", timeout=2.0).is_success else None
    except (FileNotFoundError, KeyError, json.JSONDecodeError, httpx.TransportError):
        return None


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


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it printed nothing"
