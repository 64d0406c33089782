"""The word lists of lexicon.toml."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files


@cache
def words(name: str) -> frozenset[str]:
    return frozenset(_lists()[name].split())


@cache
def opposites() -> dict[str, frozenset[str]]:
    """{word: the words that turn a statement round when they take its place}"""
    found: dict[str, frozenset[str]] = {}
    for pair in _lists()["opposites"].split():
        one, _, other = pair.partition("/")
        for a, b in ((one, other), (other, one)):
            found[a] = found.get(a, frozenset()) | {b}
    return found


@cache
def _lists() -> dict[str, str]:
    return tomllib.loads((files(__package__ or "") / "lexicon.toml").read_text(encoding="utf-8"))
