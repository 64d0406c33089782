"""Which items of a suite share a run of words with the text that a model was trained on: the decontamination index, read the other way round."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from abruzzi.contracts.evaluation import Item
from abruzzi_jobs.data.curation.decontamination import NgramIndex
from abruzzi_jobs.data.shingles import shingles

WORDS = 13
"""Of a run, as in the decontamination of corpora (GPT-3's, Brown et al. 2020)."""


class Contamination:
    """The index is of the items, so training text streams through it, whatever its size."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._asked = [(item.id, item.prompt) for item in items]
        self._index = NgramIndex.build([("suite", (prompt for _, prompt in self._asked))], words=WORDS)
        self._seen = {length: np.zeros(len(hashes), bool) for length, (hashes, _) in self._index.tables.items()}

    @property
    def can_tell(self) -> bool:
        """False where no item has a question in words: then nobody can say that it was not trained on."""
        return any(prompt.strip() for _, prompt in self._asked)

    def look(self, texts: Sequence[str]) -> None:
        """At some of the training text."""
        for length, (hashes, _) in self._index.tables.items():
            cut = shingles(texts, words=length, same_digits=False).hashes
            place = np.minimum(np.searchsorted(hashes, cut), len(hashes) - 1)
            self._seen[length][place[hashes[place] == cut]] = True

    def found(self) -> frozenset[str]:
        """Ids of items whose question shares a run of WORDS words (all of a shorter one's) with a text that was looked at."""
        tables = {n: (h[self._seen[n]], s[self._seen[n]]) for n, (h, s) in self._index.tables.items()}
        index = NgramIndex(self._index.names, {n: table for n, table in tables.items() if len(table[0])})
        matches = index.matches([prompt for _, prompt in self._asked])
        return frozenset(item_id for (item_id, _), match in zip(self._asked, matches, strict=True) if match is not None)
