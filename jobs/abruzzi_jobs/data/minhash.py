"""MinHash: signatures whose agreement estimates how much two texts share, and components of near-duplicates among many.

A signature is K = bands x rows minima; two texts agree in one with the probability of their Jaccard similarity s, the share of
shingles that they have in common. Texts that agree in all rows of a band are candidates: 1 - (1 - s^rows)^bands of all pairs.
A candidate counts when its whole signatures agree, too. Components are named by their smallest member, whatever the order of
the pairs (Broder 1997; bands as in Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, 3.4).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from abruzzi_jobs.data.shingles import batches, mix, shingles

NEIGHBOURS = 8
"""In a band's bucket each text is compared with the first and with as many before it: a bucket of copies costs no square."""
_EMPTY = np.uint32(0xFFFFFFFF)
_DEVIATIONS = 3.0
_PAIRS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class MinHash:
    shingle_words: int = 5
    bands: int = 20
    rows: int = 6
    threshold: float = 0.8
    """Jaccard similarity from which two texts are to count as one."""
    seed: int = 1

    @property
    def length(self) -> int:
        return self.bands * self.rows

    @property
    def agreement(self) -> float:
        """Share of minima that a candidate must have in common: the threshold less three standard errors of the estimate."""
        return self.threshold - _DEVIATIONS * (self.threshold * (1 - self.threshold) / self.length) ** 0.5

    def candidate_probability(self, similarity: float) -> float:
        return 1 - (1 - similarity**self.rows) ** self.bands

    def signatures(self, texts: Sequence[str]) -> NDArray[np.uint32]:
        """[D, K]. A text without a word has a row of all ones and is nobody's duplicate."""
        found = np.full((len(texts), self.length), _EMPTY)
        for part in batches(texts):
            cut = shingles(texts[part], words=self.shingle_words)
            words = (cut.hashes >> np.uint64(32)).astype(np.uint32)
            full = np.flatnonzero(np.diff(cut.starts))
            if len(full):
                found[part.start + full] = self._minima(words, cut.starts[full])
        return found

    def components(self, signatures: NDArray[np.uint32]) -> NDArray[np.int64]:
        """[D]: the smallest row of each row's component; a row is its own where it repeats none before it."""
        parents = np.arange(len(signatures), dtype=np.int64)
        for pairs in self._candidates(signatures):
            pairs = pairs[parents[pairs[:, 0]] != parents[pairs[:, 1]]]
            parents = merged(parents, pairs[self._agree(signatures, pairs)])
        return parents

    @cached_property
    def _parameters(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """x → a·x + b modulo 2^32, a odd: K permutations. From splitmix64, so that they are the same with every numpy."""
        raw = mix(
            np.arange(1, 2 * self.length + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(self.seed)
        )
        high = (raw >> np.uint64(32)).astype(np.uint32)
        return high[: self.length] | np.uint32(1), high[self.length :]

    def _minima(self, words: NDArray[np.uint32], starts: NDArray[np.int64]) -> NDArray[np.uint32]:
        factors, summands = self._parameters
        minima = np.empty((self.length, len(starts)), np.uint32)
        room = np.empty_like(words)
        for number in range(self.length):
            np.multiply(words, factors[number], out=room)
            np.add(room, summands[number], out=room)
            np.minimum.reduceat(room, starts, out=minima[number])
        return minima.T

    def _candidates(self, signatures: NDArray[np.uint32]) -> Iterator[NDArray[np.int64]]:
        """[P, 2] of each band, smaller row first."""
        rows = np.flatnonzero((signatures != _EMPTY).any(axis=1))
        for band in range(self.bands):
            keys = np.zeros(len(rows), np.uint64)
            for column in range(band * self.rows, (band + 1) * self.rows):
                keys = mix(keys ^ signatures[rows, column].astype(np.uint64))
            order = np.argsort(keys, kind="stable")
            ordered = keys[order]
            heads = np.flatnonzero(np.diff(ordered, prepend=~ordered[:1]) != 0)
            head_of = np.repeat(heads, np.diff(heads, append=len(ordered)))
            found = [np.stack([head_of, np.arange(len(ordered))])[:, head_of != np.arange(len(ordered))]]
            for distance in range(1, NEIGHBOURS + 1):
                later = np.flatnonzero(ordered[distance:] == ordered[:-distance]) + distance
                found.append(np.stack([later - distance, later]))
            pairs = np.concatenate(found, axis=1)
            yield rows[order[np.unique(pairs, axis=1)]].T

    def _agree(self, signatures: NDArray[np.uint32], pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        needed = int(np.ceil(self.agreement * self.length))
        found = np.empty(len(pairs), np.bool_)
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            part = pairs[start : start + _PAIRS_AT_ONCE]
            same = (signatures[part[:, 0]] == signatures[part[:, 1]]).sum(axis=1)
            found[start : start + _PAIRS_AT_ONCE] = same >= needed
        return found


def merged(parents: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Components after each pair of `pairs` [P, 2] has become one, again named by their smallest member: union-find for all
    pairs at once. `parents` [D] names the components before."""
    parents = parents.copy()
    while True:
        roots = np.sort(parents[pairs], axis=1)
        apart = roots[:, 0] != roots[:, 1]
        if not apart.any():
            return parents
        np.minimum.at(parents, roots[apart, 1], roots[apart, 0])
        while not np.array_equal(shorter := parents[parents], parents):
            parents = shorter
