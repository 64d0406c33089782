"""Runs of words that evaluation sets and training text have in common.

The index holds 64-bit hashes of the n-grams of all items. Words are compared without case, punctuation and accents; digits count.
An n-gram with fewer than half of its words written with letters is no evidence: tables of numbers look alike everywhere.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from abruzzi_jobs.data.shingles import normal_bytes, shingles

SHORTEST = 5
"""Words of an item that is looked for as a whole."""
_HASHED_AT_ONCE = 4096


class NgramIndex:
    """{words: (hashes ascending, number of the set of each)}; most items are longer than n words and have n-grams of n."""

    def __init__(self, names: Sequence[str], tables: dict[int, tuple[NDArray[np.uint64], NDArray[np.uint8]]]) -> None:
        self.names = tuple(names)
        self.tables = tables

    @classmethod
    def build(cls, sets: Iterable[tuple[str, Iterable[str]]], *, words: int) -> NgramIndex:
        names: list[str] = []
        found: dict[int, dict[str, int]] = defaultdict(dict)
        for name, items in sets:
            number = len(names)
            names.append(name)
            for item in items:
                for ngram in _ngrams(item, words):
                    found[len(ngram)].setdefault(" ".join(ngram), number)
        tables = {}
        for length, ngrams in sorted(found.items()):
            texts = list(ngrams)
            parts = [
                shingles(texts[i : i + _HASHED_AT_ONCE], words=length, same_digits=False).hashes
                for i in range(0, len(texts), _HASHED_AT_ONCE)
            ]
            hashes, first = np.unique(np.concatenate(parts), return_index=True)
            tables[length] = hashes, np.fromiter(ngrams.values(), np.uint8, len(ngrams))[first]
        return cls(names, tables)

    @property
    def size(self) -> int:
        return sum(len(hashes) for hashes, _ in self.tables.values())

    def matches(self, texts: Sequence[str]) -> list[str | None]:
        """For each text the set that it shares a run of words with, None where there is none; of several the first by name."""
        found = np.full(len(texts), len(self.names))
        for length, (hashes, sets) in self.tables.items():
            cut = shingles(texts, words=length, same_digits=False)
            place = np.minimum(np.searchsorted(hashes, cut.hashes), len(hashes) - 1)
            hit = np.flatnonzero(hashes[place] == cut.hashes)
            text = np.searchsorted(cut.starts, hit, side="right") - 1
            np.minimum.at(found, text, sets[place[hit]].astype(found.dtype))
        return [self.names[i] if i < len(self.names) else None for i in found]

    def to_bytes(self) -> bytes:
        """The same index gives the same bytes."""
        out = io.BytesIO()
        header = [np.array(["\n".join(self.names)]), np.array(list(self.tables), np.int64)]
        for array in [*header, *(a for table in self.tables.values() for a in table)]:
            np.lib.format.write_array(out, array, allow_pickle=False)
        return out.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> NgramIndex:
        stream = io.BytesIO(content)

        def read() -> NDArray:
            return np.lib.format.read_array(stream, allow_pickle=False)

        joined = str(read()[0])
        return cls(joined.split("\n") if joined else [], {int(n): (read(), read()) for n in read()})


def _ngrams(item: str, words: int) -> list[list[str]]:
    found = normal_bytes(item, same_digits=False).replace(b"\0", b" ").decode("utf-8", "replace").split()
    length = min(words, len(found))
    if length < SHORTEST:
        return []
    ngrams = [found[i : i + length] for i in range(len(found) - length + 1)]
    return [n for n in ngrams if 2 * sum(any(c.isalpha() for c in word) for word in n) >= length]
