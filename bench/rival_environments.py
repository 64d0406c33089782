"""Environments of rivals, which are never among ours: made by uv at the first run, below `.bench-envs`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRL = "trl==1.16.0"


def trl_environment() -> Path:
    """Its Python; with our versions of torch and transformers, so that only what is compared differs."""
    own = [f"{name}=={version(name).split('+')[0]}" for name in ("torch", "transformers")]
    return environment("trl", [TRL, *own])


def environment(name: str, packages: Sequence[str]) -> Path:
    folder = ROOT / ".bench-envs" / name
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        uv = shutil.which("uv", path=f"{ROOT / '.cache' / 'uv' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}")
        if uv is None:
            raise SystemExit(
                f"uv is not on the PATH; it makes the environment of {name}: run `make dev`, which fetches it"
            )
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", python, *packages], check=True)
        (folder / "ready").touch()
    return python
