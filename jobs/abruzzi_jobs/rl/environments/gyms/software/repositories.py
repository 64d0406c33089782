"""Small repositories with one thing broken in each: from working projects, a list of bugs, and another name for the package each time."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
PACKAGES = ("kestrel", "marlin", "osprey", "pika", "quill", "sorrel", "tamarin", "wren")


@dataclass(frozen=True, kw_only=True)
class Bug:
    project: str
    file: str
    right: str
    wrong: str
    issue: str
    failing: list[str]
    passing: list[str]

    @property
    def key(self) -> str:
        return f"{self.project}/{self.file}/{self.wrong}"


@cache
def bugs() -> tuple[Bug, ...]:
    listed: list[dict[str, Any]] = tomllib.loads((_HERE / "bugs.toml").read_text(encoding="utf-8"))["bug"]
    return tuple(Bug(**bug) for bug in listed)


@cache
def project(name: str) -> dict[str, str]:
    """Path → text of the project that works."""
    root = _HERE / "projects" / name
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.suffix in (".py", ".md"))
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in files}


def named(text: str, bug: Bug, package: str) -> str:
    """With the package's other name."""
    return re.sub(rf"\b{bug.project}\b", package, text)


def repository(bug: Bug, package: str, *, mended: bool = False) -> dict[str, str]:
    files = dict(project(bug.project))
    if not mended:
        assert files[bug.file].count(bug.right) == 1, bug.key
        files[bug.file] = files[bug.file].replace(bug.right, bug.wrong)
    return {named(path, bug, package): named(text, bug, package) for path, text in files.items()}
