"""What test runners print, read as SWE-bench reads it: a name and whether it passed."""

from __future__ import annotations

import re
from collections.abc import Mapping

_LINES = {
    "pytest": re.compile(r"^(?P<word>PASSED|XFAIL|FAILED|ERROR|SKIPPED|XPASS) (?P<name>.+)$", re.MULTILINE),
    "unittest": re.compile(r"^(?P<name>.+?) \.\.\. (?P<word>ok|expected failure|FAIL|ERROR|skipped.*)$", re.MULTILINE),
    "go": re.compile(r"^\s*--- (?P<word>PASS|FAIL|SKIP): (?P<name>\S+)", re.MULTILINE),
    "cargo": re.compile(r"^test (?P<name>\S+)(?: - should panic)? \.\.\. (?P<word>ok|FAILED|ignored)", re.MULTILINE),
}
READERS = tuple(_LINES)
_GOOD = frozenset(("PASSED", "XFAIL", "ok", "expected failure", "PASS"))


def outcomes(text: str, reader: str) -> dict[str, bool]:
    """Name → whether it passed. Raises KeyError for a reader that there is not."""
    found: dict[str, bool] = {}
    for line in _LINES[reader].finditer(text):
        good, name = line["word"] in _GOOD, line["name"]
        if reader == "pytest" and not good:
            name = name.partition(" - ")[0]
        found[name.rstrip()] = good
    return found


def passes(name: str, found: Mapping[str, bool]) -> bool:
    """SWE-bench's lists cut a name at its first blank: such a one passes where all that it may mean do."""
    if name in found:
        return found[name]
    meant = [good for whole, good in found.items() if whole.split(" ")[0] == name]
    return bool(meant) and all(meant)
