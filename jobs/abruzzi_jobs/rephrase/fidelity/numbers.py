"""Numbers by value: 1,000 and 1000.0 and "one thousand" are one. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from abruzzi_jobs.rephrase.fidelity.fault import Span

_DIGITS = re.compile(
    r"(?<![\w.])(?P<sign>[-−])?(?P<digits>\d{1,3}(?:[,\u202f\u00a0]\d{3})+(?![\d,])(?:\.\d+)?|\d+(?:\.\d+)*)"
    r"(?:\s?(?P<scale>thousand|million|billion|trillion)\b|(?:st|nd|rd|th|s)\b)?"
)
_GROUPING = re.compile(r"[,\u202f\u00a0]")
_ONES = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
_TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_NUMERALS = "|".join([*_TENS, *_ONES, *_SCALES])
_WRITTEN = re.compile(rf"\b(?:{_NUMERALS})(?:(?:[ -]| and )(?:{_NUMERALS}))*\b", re.IGNORECASE)
_STANDS_FOR = {
    "both": 2, "pair": 2, "pairs": 2, "couple": 2, "twice": 2, "double": 2, "twin": 2, "dual": 2, "second": 2, "half": 2, "halves": 2,
    "thrice": 3, "triple": 3, "third": 3, "trio": 3, "fourth": 4, "quarter": 4, "quarters": 4, "fifth": 5, "sixth": 6, "seventh": 7,
    "eighth": 8, "ninth": 9, "tenth": 10, "dozen": 12, "dozens": 12, "once": 1, "first": 1, "single": 1, "century": 100, "decade": 10,
    "sole": 1, "only": 1,
}  # fmt: skip
_VAGUE = frozenset((0, 1, 2))
"""Written as words these are articles and pronouns as often as numbers."""


@dataclass(frozen=True)
class Number:
    value: str
    """Canonical: the same text for the same value."""
    span: Span
    is_exact: bool
    """Written in digits, or a word that is nothing but a number: it must be kept."""


def numbers_in(text: str, start: int, end: int) -> list[Number]:
    """In the order of their places."""
    return sorted([*_in_digits(text, start, end), *_in_words(text, start, end)], key=lambda n: n.span)


def stand_ins(text: str) -> set[str]:
    """Values that words such as `both` and `third` may stand for."""
    return {str(_STANDS_FOR[w]) for w in re.findall(r"[a-z]+", text.lower()) if w in _STANDS_FOR}


def _in_digits(text: str, start: int, end: int) -> Iterator[Number]:
    for match in _DIGITS.finditer(text, start, end):
        digits = match["digits"]
        sign = "-" if match["sign"] and (match.start() == start or text[match.start() - 1] in " (=\n\t") else ""
        if digits.count(".") > 1:
            yield Number(sign + digits, match.span(), True)
            continue
        value = Decimal(_GROUPING.sub("", digits)) * (_SCALES[match["scale"]] if match["scale"] else 1)
        yield Number(sign + _canonical(value), match.span(), True)


def _in_words(text: str, start: int, end: int) -> Iterator[Number]:
    for match in _WRITTEN.finditer(text, start, end):
        total = current = 0
        for word in re.findall(r"[a-z]+", match[0].lower()):
            if word in _SCALES:
                current = max(1, current) * _SCALES[word]
                if _SCALES[word] > 100:
                    total, current = total + current, 0
            elif word != "and":
                current += _ONES.get(word, _TENS.get(word, 0))
        value = total + current
        before = text[max(start, match.start() - 12) : match.start()]
        if match[0].lower() in _SCALES and _DIGITS.search(before.rstrip()[-6:]):
            continue  # "40 million" is one number, in digits
        yield Number(str(value), match.span(), value not in _VAGUE)


def _canonical(value: Decimal) -> str:
    return format(value.normalize(), "f")
