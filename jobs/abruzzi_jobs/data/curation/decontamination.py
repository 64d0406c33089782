"""Runs of words that evaluation sets and training text have in common.

The index holds 64-bit hashes of the n-grams of all items. Words are compared without case, punctuation and accents; digits count.
An n-gram with fewer than half of its words written with letters is no evidence: tables of numbers look alike everywhere.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from abruzzi_jobs.data.shingles import batches, normal_bytes, shingles

SHORTEST = 5
"""Words of an item that is looked for as a whole."""


class _Item(NamedTuple):
    text: str
    letters: list[bool]
    """Of each word whether it is written with letters."""
    number: int
    """Of its set."""


class NgramIndex:
    """{words: (hashes ascending, number of the set of each)}; most items are longer than n words and have n-grams of n."""

    def __init__(self, names: Sequence[str], tables: dict[int, tuple[NDArray[np.uint64], NDArray[np.uint8]]]) -> None:
        self.names = tuple(names)
        self.tables = tables

    @classmethod
    def build(cls, sets: Iterable[tuple[str, Iterable[str]]], *, words: int) -> NgramIndex:
        names: list[str] = []
        found: dict[int, list[_Item]] = defaultdict(list)
        for name, items in sets:
            for item in items:
                letters = [any(c.isalpha() for c in word) for word in _words(item)]
                if len(letters) >= SHORTEST:
                    found[min(words, len(letters))].append(_Item(item, letters, len(names)))
            names.append(name)
        made = {length: _table(items, length) for length, items in sorted(found.items())}
        tables = {
            length: table for length, table in made.items() if len(table[0])
        }  # none is left where none is evidence
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


def _words(item: str) -> list[str]:
    return normal_bytes(item, same_digits=False).replace(b"\0", b" ").decode("utf-8", "replace").split()


def _table(items: list[_Item], length: int) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """(hashes ascending, number of the first set that has each) of the n-grams of items that are so long or longer."""
    hashes, sets = [], []
    for part in batches([item.text for item in items]):
        texts = [item.text for item in items[part]]
        cut = shingles(texts, words=length, same_digits=False)
        written = np.concatenate([_in_windows(item.letters, length) for item in items[part]])
        evidence = 2 * written >= length
        hashes.append(cut.hashes[evidence])
        numbers = np.array([item.number for item in items[part]], np.uint8)
        sets.append(np.repeat(numbers, np.diff(cut.starts))[evidence])
    ascending, first = np.unique(np.concatenate(hashes), return_index=True)
    return ascending, np.concatenate(sets)[first]


def _in_windows(flags: list[bool], length: int) -> NDArray[np.int64]:
    """[len - length + 1]: how many are set in each run of `length`."""
    sums = np.cumsum([0, *flags])
    return sums[length:] - sums[:-length]
