"""Knowledge: whether a text keeps the numbers and names of the text that it tells again, and states the facts that it is said to state.

Numbers are compared by value, names as they are written. A name is a run of capitalised words that is not only the beginning of a
sentence, or a word with a capital inside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from abruzzi_jobs.data.documents import Fact

_NUMBER = re.compile(r"(?<![\w.])[-−]?(?:\d{1,3}(?:[,\u202f ]\d{3})+(?!\d)|\d+)(?:\.\d+)?(?![\w]*\d)")
_WORD = r"[^\W\d_][\w'’-]*"
_NAME = re.compile(rf"(?<![\w]){_WORD}(?: (?:of|the|de|van|von|del|la|and) {_WORD}| {_WORD})*")
_INNER = frozenset(("of", "the", "de", "van", "von", "del", "la", "and"))
_SENTENCE_END = re.compile(r"(?:^|[.!?:;\n•*#>\"“(]\s*)$")
_TENS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"]  # fmt: skip
_WRITTEN = {word: Decimal(value) for value, word in enumerate(_TENS)}


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    kind: Literal["missing_number", "added_number", "missing_name", "added_name"]
    what: str


def disagreements(reference: str, text: str) -> list[Disagreement]:
    """What `text` loses of `reference` and what it adds. Small numbers may be written in words; a part of a longer name of the
    reference is no addition."""
    there, here = numbers(reference), numbers(text)
    spelled = {v for w, v in _WRITTEN.items() if re.search(rf"\b{w}\b", text.lower())}
    spelled_there = {v for w, v in _WRITTEN.items() if re.search(rf"\b{w}\b", reference.lower())}
    found = [Disagreement(kind="missing_number", what=str(n)) for n in sorted(there - here - spelled)]
    found += [Disagreement(kind="added_number", what=str(n)) for n in sorted(here - there - spelled_there)]
    flat_reference, flat_text = _flat(reference), _flat(text)
    found += [Disagreement(kind="missing_name", what=n) for n in sorted(names(reference)) if _flat(n) not in flat_text]
    found += [Disagreement(kind="added_name", what=n) for n in sorted(names(text)) if _flat(n) not in flat_reference]
    return found


def numbers(text: str) -> set[Decimal]:
    """By value: 1,000 and 1000.0 are one."""
    return {Decimal(re.sub(r"[,\u202f ]", "", m[0]).replace("−", "-")).normalize() + 0 for m in _NUMBER.finditer(text)}


def names(text: str) -> set[str]:
    found = set()
    for match in _NAME.finditer(text):
        begins = _SENTENCE_END.search(text[: match.start()][-4:]) is not None
        run: list[str] = []
        for position, word in enumerate([*match[0].split(" "), ""]):
            if word[:1].isupper() or (run and word in _INNER):
                run.append(word)
                continue
            first = begins and position == len(run)
            found |= _name(run, first)
            run = []
    return found


def facts_stated(text: str, facts: Iterable[Fact]) -> list[Fact]:
    """Facts whose subject or answer the text does not name."""
    flat = _flat(text)
    return [f for f in facts if _flat(f.subject) not in flat or _flat(f.answer) not in flat]


def _name(run: list[str], begins_sentence: bool) -> set[str]:
    """A name of a run of capitalised words: without the small ones at its end, and none where one word begins a sentence."""
    while run and run[-1] in _INNER:
        run = run[:-1]
    if begins_sentence and run and not any(c.isupper() for c in run[0][1:]):
        run = run[1:] if len(run) > 1 and run[0].lower() in _OPENERS else run
        if len(run) == 1:
            return set()
    while run and run[0] in _INNER:
        run = run[1:]
    return {" ".join(run)} if run and run != ["I"] else set()


_OPENERS = frozenset(
    [
        "the",
        "a",
        "an",
        "this",
        "that",
        "these",
        "those",
        "in",
        "on",
        "at",
        "by",
        "for",
        "from",
        "with",
        "it",
        "he",
        "she",
        "they",
        "we",
        "as",
        "when",
        "while",
        "after",
        "before",
        "its",
        "his",
        "her",
        "their",
    ]
)


def _flat(text: str) -> str:
    return " ".join(text.split()).casefold()
