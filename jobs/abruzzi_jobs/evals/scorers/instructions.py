"""Answers under verifiable instructions, as IFEval scores them: all of a prompt's rules (strict), or all in one of eight readings each (loose)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Rule = Callable[[Mapping[str, Any], str], bool]
_HARMLESS = (ArithmeticError, LookupError, ValueError, RecursionError)
"""What a rule raises at an answer that it cannot read, such as one without words: not followed."""


@dataclass(frozen=True, kw_only=True)
class Followed:
    strict: tuple[bool, ...]
    loose: tuple[bool, ...]
    """One a rule, in the prompt's order."""


def followed(
    rules: Mapping[str, Rule], names: Sequence[str], params: Sequence[Mapping[str, Any]], text: str
) -> Followed:
    """Raises KeyError for a rule that `rules` does not have."""
    readings = _readings(text)
    strict, loose = [], []
    for name, given in zip(names, params, strict=True):
        rule, known = rules[name], {key: value for key, value in given.items() if value is not None}
        strict.append(_holds(rule, known, text))
        loose.append(any(_holds(rule, known, reading) for reading in readings))
    return Followed(strict=tuple(strict), loose=tuple(loose))


def _readings(text: str) -> list[str]:
    """Without a first or last line that only introduces or ends, and without asterisks."""
    lines = text.split("\n")
    cut = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*cut, *(reading.replace("*", "") for reading in cut)]


def _holds(rule: Rule, params: Mapping[str, Any], text: str) -> bool:
    try:
        return bool(text.strip()) and rule(params, text)
    except _HARMLESS:
        return False
