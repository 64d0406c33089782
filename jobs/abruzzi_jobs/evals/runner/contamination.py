"""Which items of a suite share a run of words with the text that a model was trained on: the decontamination index, read the other way round."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from abruzzi.contracts.evaluation import Item
from abruzzi_jobs.data.curation.decontamination import NgramIndex
from abruzzi_jobs.data.shingles import shingles

WORDS = 13
"""Of a run, as in the decontamination of corpora (GPT-3's, Brown et al. 2020)."""
_AT_A_TIME = 256


def contaminated(items: Iterable[Item], training: Iterable[str]) -> set[str]:
    """Ids of items whose question shares a run of WORDS words (all of a shorter one's) with a training text. The index is of the items, so
    training text streams through it, whatever its size."""
    asked = [(item.id, item.prompt) for item in items]
    index = NgramIndex.build([("suite", (prompt for _, prompt in asked))], words=WORDS)
    seen = {length: np.zeros(len(hashes), bool) for length, (hashes, _) in index.tables.items()}
    for texts in _in_batches(training):
        for length, (hashes, _) in index.tables.items():
            cut = shingles(texts, words=length, same_digits=False).hashes
            place = np.minimum(np.searchsorted(hashes, cut), len(hashes) - 1)
            seen[length][place[hashes[place] == cut]] = True
    found = NgramIndex(
        index.names,
        {n: (hashes[seen[n]], sets[seen[n]]) for n, (hashes, sets) in index.tables.items() if seen[n].any()},
    )
    matches = found.matches([prompt for _, prompt in asked])
    return {item_id for (item_id, _), match in zip(asked, matches, strict=True) if match is not None}


def _in_batches(texts: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(texts)
    while batch := list(islice(remaining, _AT_A_TIME)):
        yield batch
