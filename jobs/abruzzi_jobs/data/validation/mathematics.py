"""Mathematics: answers that mean the same, and arithmetic that a text states.

Answers go through math-verify, which reads LaTeX and plain expressions and compares them with sympy. Stated arithmetic is
computed exactly; a result that is given with decimals may be rounded to them.
"""

from __future__ import annotations

import re
from fractions import Fraction

from abruzzi.contracts.errors import AbruzziError

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_OPERATOR = r"[ ]?[-+*/×÷·−][ ]?"
_SIDE = rf"{_NUMBER}(?:{_OPERATOR}{_NUMBER})*"
_EQUATION = re.compile(
    rf"(?<![\w.,=+*/^×÷·−<>(){{}}|%$-])(?<![=+*/^×÷·−<>|-] )({_SIDE})((?:[ ]?=[ ]?-?{_SIDE})+)(?![\w^%/*×÷({{!]|[.,]\d|[ ]?[-+*/×÷·−^=])"
)
_TOKEN = re.compile(rf"({_NUMBER})|([-+*/×÷·−])")
_TIMES, _MINUS, _OVER = "*×·", "-−", "/÷"


def answers_agree(expected: str, found: str, *, seconds: int = 5) -> bool:
    """Whether two answers are the same mathematical object, such as `1/2`, `$\\frac{1}{2}$` and `0.5`. Raises AbruzziError missing_package."""
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise AbruzziError(
            "missing_package",
            "Comparing answers needs the package math-verify, which is not installed here.",
            hint="Install abruzzi-jobs[curation].",
        ) from error
    gold, answer = (parse(text, parsing_timeout=seconds) for text in (expected, found))
    return bool(gold and answer) and bool(verify(gold, answer, timeout_seconds=seconds))


def wrong_equations(text: str) -> list[str]:
    """Stated equations between numbers that do not hold, such as `12 * 7 = 85`. Only what stands there plainly is read: no letters,
    brackets, powers or units."""
    wrong = []
    for match in _EQUATION.finditer(text):
        sides = re.split(r"[ ]?=[ ]?", match[0])
        if not any(_TOKEN.search(side) and re.search(_OPERATOR, side.lstrip("-")) for side in sides):
            continue
        values = [_value(side) for side in sides]
        if all(v is not None for v in values) and not _equal(sides, [v for v in values if v is not None]):
            wrong.append(match[0])
    return wrong


def _equal(sides: list[str], values: list[Fraction]) -> bool:
    tolerance = max(_tolerance(side) for side in sides)
    return all(abs(value - values[0]) <= tolerance for value in values)


def _tolerance(side: str) -> Fraction:
    """Half a unit of the last decimal of a lone rounded number."""
    lone = re.fullmatch(rf"-?{_NUMBER}", side)
    if lone is None or "." not in side:
        return Fraction(0)
    return Fraction(1, 2 * 10 ** len(side.partition(".")[2]))


def _value(side: str) -> Fraction | None:
    """With the usual precedence, from left to right; None where it divides by zero."""
    negative = side.startswith("-")
    total, term, sign, operator = Fraction(0), None, Fraction(-1 if negative else 1), "*"
    for number, found in _TOKEN.findall(side[1:] if negative else side):
        if number:
            value = Fraction(number.replace(",", ""))
            if term is None:
                term = value
            elif operator in _TIMES:
                term *= value
            elif value == 0:
                return None
            else:
                term /= value
        elif found in _TIMES or found in _OVER:
            operator = found
        else:
            total += sign * (term if term is not None else 0)
            sign, term = Fraction(-1 if found in _MINUS else 1), None
    return total + sign * (term if term is not None else 0)
