"""Data files of installed packages, read as data: no code of theirs is imported."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any


def package_folder(package: str) -> Path:
    """Raises ModuleNotFoundError."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.origin:
        raise ModuleNotFoundError(package)
    return Path(spec.origin).parent


def iso_entries(table: str) -> list[dict[str, Any]]:
    """Of a table of pycountry, such as `iso3166-1`, in its order."""
    content = json.loads((package_folder("pycountry") / "databases" / f"{table}.json").read_text(encoding="utf-8"))
    return next(iter(content.values()))
