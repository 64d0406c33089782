"""`abruzzi doctor`: looks at every part that people get wrong, and says what to do."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version

import httpx
from rich.markup import escape

from abruzzi.cli.session import OUTPUT, JsonOption, print_json
from abruzzi.client.profile import home, resolve_profile
from abruzzi.contracts.errors import AbruzziError


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    ok: bool
    finding: str
    remedy: str = ""
    needed: bool = True
    """A missing optional part does not fail the command."""


def doctor(as_json: JsonOption = False) -> None:
    """Check this machine and the platform it talks to. Exit code 1 when something needed is wrong."""
    checks = list(_checks())
    if as_json:
        print_json(
            [{"name": c.name, "ok": c.ok, "finding": c.finding, "remedy": c.remedy, "needed": c.needed} for c in checks]
        )
    else:
        for check in checks:
            mark = "[green]✓[/]" if check.ok else "[red]✗[/]" if check.needed else "[yellow]–[/]"
            OUTPUT.print(f"{mark} {check.name:<10} {escape(check.finding)}", soft_wrap=True)
            if not check.ok and check.remedy:
                OUTPUT.print(f"             [dim]{escape(check.remedy)}[/]", soft_wrap=True)
    if any(not c.ok and c.needed for c in checks):
        raise SystemExit(1)


def _checks() -> Iterator[Check]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", sys.version_info >= (3, 11), python, "Abruzzi needs Python 3.11 or newer.")
    for name, what in (
        ("abruzzi-api", "server"),
        ("abruzzi-operators", "`abruzzi up`"),
        ("abruzzi-jobs", "training stages"),
    ):
        yield _installed(name, what)
    yield Check("cores", True, f"{os.cpu_count()} cores")
    folder = home()
    free = shutil.disk_usage(folder if folder.exists() else folder.parent if folder.parent.exists() else "/").free
    yield Check(
        "disk",
        free > 2 << 30,
        f"{free / 2**30:.1f} GiB free at {folder}",
        "Checkpoints need room: free some space, or set ABRUZZI_HOME to a larger disk.",
    )
    yield from _platform()
    for point in sorted(entry_points(group="abruzzi.checks"), key=lambda point: point.name):
        yield from point.load()()


def _installed(name: str, what: str) -> Check:
    try:
        return Check(name.removeprefix("abruzzi-"), True, f"{name} {version(name)}", needed=False)
    except PackageNotFoundError:
        return Check(
            name.removeprefix("abruzzi-"),
            False,
            f"{name} is not installed",
            f"Needed on machines that run the {what}.",
            needed=False,
        )


def _platform() -> Iterator[Check]:
    try:
        profile = resolve_profile()
    except AbruzziError as error:
        yield Check("platform", False, error.message, error.hint or "")
        return
    yield Check("platform", True, f"{profile.url} ({profile.source})")
    for name, path, remedy in (
        ("api", "/healthz", f"Nothing answers at {profile.url}: start it with `abruzzi up`, or correct ABRUZZI_URL."),
        ("database", "/readyz", "The API is up but its database is not: see logs/postgres.log in the platform's home."),
        (
            "token",
            "/api/v1/session",
            "The token is wrong, revoked or expired: `abruzzi login`, or read the home's token file.",
        ),
    ):
        try:
            answer = httpx.get(profile.url + path, headers={"Authorization": f"Bearer {profile.token}"}, timeout=5.0)
            yield Check(name, answer.is_success, f"{path} answers {answer.status_code}", remedy)
        except httpx.TransportError as error:
            yield Check(name, False, f"{path}: {type(error).__name__}", remedy)
            return
