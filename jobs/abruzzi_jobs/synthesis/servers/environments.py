"""One environment a server, made once from its locks and kept below a root folder. Nothing of a package runs while it is installed:
wheels only for Python, `--ignore-scripts` for npm; every file is checked against the lock's hash."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.sandbox import python_files
from abruzzi_jobs.synthesis.servers.catalogue import Server

_INSTALL_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class Environment:
    """`argv` starts the server (placeholders filled by the importer), `readable` are the folders that it needs to see."""

    argv: tuple[str, ...]
    readable: tuple[Path, ...]
    licence: str


def default_root() -> Path:
    home = os.environ.get("ABRUZZI_TOOL_SERVERS")
    return Path(home) if home else Path.home() / ".cache" / "abruzzi" / "tool-servers"


def prepare(server: Server, root: Path) -> Environment:
    """Installs it where it is not there yet; two processes that want the same one wait for each other.

    Raises AbruzziError `server_not_installed` with the installer's last lines."""
    folder = root.absolute() / f"{server.slug}-{server.lock_digest[7:19]}"
    root.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _install(server, folder)
            (folder / "complete").touch()
    return _python(server, folder) if server.runtime == "python" else _node(server, folder)


def _install(server: Server, folder: Path) -> None:
    if server.runtime == "node":
        folder.mkdir()
        for path in server.lock_files:
            shutil.copy(path, folder)
        npm = shutil.which("npm")
        if npm is None:
            raise AbruzziError("server_not_installed", f"{server.name} needs npm, which is not on the PATH.")
        _call(server, [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], folder)
        return
    files = [part for path in server.lock_files for part in ("-r", str(path))]
    strict = ["--require-hashes", "--no-deps", "--only-binary", ":all:", *files]
    python = str(folder / "bin" / "python")
    uv = shutil.which("uv")
    if uv is not None:
        _call(server, [uv, "venv", "-q", "--python", sys.executable, str(folder)], None)
        _call(server, [uv, "pip", "install", "-q", "--python", python, *strict], None)
    else:
        _call(server, [sys.executable, "-m", "venv", str(folder)], None)
        _call(server, [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *strict], None)


def _call(server: Server, command: list[str], folder: Path | None) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
        )
        reason = "" if done.returncode == 0 else " ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        failed = done.returncode != 0
    except (OSError, subprocess.TimeoutExpired) as error:
        failed, reason = True, str(error)
    if failed:
        raise AbruzziError(
            "server_not_installed",
            f"{server.name}: {Path(command[0]).name} failed: {reason}",
            hint="The package index must be reachable once; afterwards the environment is kept.",
            status=503,
        )


def _python(server: Server, folder: Path) -> Environment:
    python = folder / "bin" / "python"
    sites = [str(path) for path in folder.glob("lib/python*/site-packages")]
    found = list(importlib.metadata.distributions(name=server.name, path=sites))
    licence = "undeclared"
    if found:
        about: Any = found[0].metadata
        classifiers = [c for c in about.get_all("Classifier") or [] if c.startswith("License :: ")]
        declared = about.get("License-Expression") or (about.get("License") or "").split("\n")[0]
        licence = declared or (classifiers[0].rsplit(" :: ", 1)[-1] if classifiers else "undeclared")
    argv = (str(folder / "bin" / server.command[0]), *server.command[1:])
    return Environment(argv=argv, readable=(folder, *python_files(python)), licence=licence)


def _node(server: Server, folder: Path) -> Environment:
    node = shutil.which("node")
    if node is None:
        raise AbruzziError("server_not_installed", f"{server.name} needs node, which is not on the PATH.")
    script = (folder / "node_modules" / ".bin" / server.command[0]).resolve()
    about = json.loads((folder / "node_modules" / server.name / "package.json").read_text())
    licence = about.get("license") or "undeclared"
    prefix = Path(node).resolve().parent.parent
    return Environment(
        argv=(str(Path(node).resolve()), str(script), *server.command[1:]),
        readable=(folder, prefix),
        licence=str(licence),
    )
