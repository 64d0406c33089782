"""Data files of installed packages, read as data: no code of theirs is imported."""

from __future__ import annotations

import gzip
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator
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


def json_lines(distribution: str, path: str) -> Iterator[dict[str, Any]]:
    """Of a file of a distribution, packed by gzip or not. Raises PackageNotFoundError."""
    place = Path(str(importlib.metadata.distribution(distribution).locate_file(path)))
    with gzip.open(place, "rt", encoding="utf-8") if place.suffix == ".gz" else place.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def distribution_files(distribution: str, start: str, end: str) -> list[Path]:
    """Files whose names begin and end so, in order of name. Raises PackageNotFoundError."""
    held = importlib.metadata.distribution(distribution).files or []
    found = sorted(str(file) for file in held if str(file).startswith(start) and str(file).endswith(end))
    return [Path(str(importlib.metadata.distribution(distribution).locate_file(name))) for name in found]
