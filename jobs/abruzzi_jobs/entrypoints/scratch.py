"""Folders for files on their way into an artifact."""

from __future__ import annotations

import shutil
from pathlib import Path


def fresh_folder(path: Path) -> Path:
    """Empty, also where a rank that was started again has left something."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def files_of(folder: Path) -> dict[str, Path]:
    """{name in the artifact: file}"""
    return {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
