"""Short answers and letters in what a model wrote."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterable

_STATED = re.compile(r"(?:answer|答案)\s*(?:is|:|：|为|是)?\s*[:：]?\s*\**\s*\(?([A-Za-z])\b", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\{(?:\\text\{)?\(?([A-Za-z])\)?\}?\}")
_ALONE = re.compile(r"^\W*\(?([A-Z])\)?(?:[.:)]|\s|$)")
_TEXT = re.compile(r"(?:answer|答案)\s*(?:is|:|：|=)\s*(.+)", re.IGNORECASE)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
LONGEST = 20_000
"""Characters from the end that an answer is looked for in."""


def letter(text: str, letters: str) -> str:
    """The option that is named last behind `Answer:` or in a box, or that the text begins with; '' where it names none of `letters`."""
    tail = text[-LONGEST:]
    found = _STATED.findall(tail) or _BOXED.findall(tail) or _ALONE.findall(text.strip()[:LONGEST])
    chosen = found[-1].upper() if found else ""
    return chosen if chosen and chosen in letters else ""


def stated(text: str) -> str:
    """What stands behind the last `Answer:`, else the last line."""
    tail = text[-LONGEST:]
    found = _TEXT.findall(tail)
    return (
        found[-1] if found else next((line for line in reversed(tail.strip().splitlines()) if line.strip()), "")
    ).strip()


def normal(text: str) -> str:
    """As SQuAD compares: small letters, no punctuation, no articles, single blanks."""
    bare = "".join(char for char in text.lower() if char not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact(answers: Iterable[str], found: str) -> float:
    return float(normal(found) in {normal(answer) for answer in answers})


def f1(answers: Iterable[str], found: str) -> float:
    """Overlap of words with the nearest of the answers."""
    return max((_overlap(normal(answer).split(), normal(found).split()) for answer in answers), default=0.0)


def _overlap(wanted: list[str], found: list[str]) -> float:
    common = sum((Counter(wanted) & Counter(found)).values())
    return 2 * common / (len(wanted) + len(found)) if common else 0.0
