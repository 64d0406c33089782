"""How the documents of a corpus are distributed, by domain: lengths, and marks of quality that are cheap to count. For people to look at."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Measure:
    name: str
    title: str
    edges: tuple[float, ...]
    """Ascending; a value falls below the first, between two, or from the last on."""


MEASURES = (
    Measure("words", "Words a document", tuple(float(2**n) for n in range(3, 16))),
    Measure("word_length", "Mean length of its words", tuple(n / 2 for n in range(4, 21))),
    Measure("letters", "Share of words made of letters alone", tuple(n / 20 for n in range(4, 20))),
    Measure(
        "compressed", "Size when packed (repetitive below 0.3, random above 0.7)", tuple(n / 20 for n in range(3, 17))
    ),
)
_HEAD = 1 << 16
"""Characters that are packed: enough to see repetition, and long documents cost no more than that."""


class Distributions:
    def __init__(self) -> None:
        self._counts: dict[str, dict[str, list[int]]] = {
            m.name: defaultdict(lambda size=len(m.edges) + 1: [0] * size) for m in MEASURES
        }

    def add(self, domain: str, text: str) -> None:
        values = _measured(text)
        for measure in MEASURES:
            self._counts[measure.name][domain][bisect_right(measure.edges, values[measure.name])] += 1

    def as_dict(self) -> dict[str, Any]:
        """{measure: {title, edges, domains: {domain: documents a bin}}}"""
        return {
            m.name: {"title": m.title, "edges": list(m.edges), "domains": dict(sorted(self._counts[m.name].items()))}
            for m in MEASURES
        }


def _measured(text: str) -> dict[str, float]:
    words = text.split()
    count = max(1, len(words))
    head = text[:_HEAD].encode("utf-8", "replace")
    return {
        "words": float(len(words)),
        "word_length": sum(map(len, words)) / count,
        "letters": sum(map(str.isalpha, words)) / count,
        "compressed": len(zlib.compress(head, 1)) / max(1, len(head)),
    }
