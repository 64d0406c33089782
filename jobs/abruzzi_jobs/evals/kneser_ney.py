"""An interpolated Kneser-Ney n-gram model over bytes: the baseline that a trained model must beat.

Modified discounts (Chen and Goodman 1999, section 3.2): for an n-gram hw of the highest order with count c,

    p(w | h) = max(c(hw) - D(c(hw)), 0) / c(h.) + gamma(h) p(w | h'),      gamma(h) = sum_i D_i N_i(h.) / c(h.)

h' is h without its first byte, N_i(h.) the number of bytes that follow h exactly i times (3 or more for i = 3). Below the
highest order c counts the distinct bytes before an n-gram instead of its occurrences. An h never seen passes on to h';
single bytes interpolate with 1/256. Therefore p(. | h) sums to 1 over the 256 bytes for every h.

Text begins with order - 1 zero bytes of padding. Counting sorts one chunk at a time, so memory is bounded by the chunk and
the number of distinct n-grams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 4 << 20
MAX_ORDER = 8


@dataclass(frozen=True)
class _Level:
    """All n-grams of one order: codes are their bytes as a big-endian number, ascending."""

    codes: NDArray[np.uint64]
    shares: NDArray[np.float64]
    """(c - D(c)) / c(h.) of each n-gram."""
    contexts: NDArray[np.uint64]
    gammas: NDArray[np.float64]
    """Weight of the lower order for each context."""


class KneserNeyBytes:
    def __init__(self, levels: list[_Level]) -> None:
        self._levels = levels

    @property
    def order(self) -> int:
        return len(self._levels)

    @classmethod
    def train(
        cls, documents: Iterable[bytes], *, order: int, tell: Callable[[int], None] | None = None
    ) -> KneserNeyBytes:
        """`tell` hears how many bytes are counted. Raises ValueError for an order outside 1 … 8 or when there is no text."""
        if not 1 <= order <= MAX_ORDER:
            raise ValueError(f"order is {order}; 1 to {MAX_ORDER} are possible")
        codes, counts = _count(documents, order, tell)
        if not len(codes):
            raise ValueError("there is no text to count")
        levels = [_level(codes, counts)]
        for lower in range(order - 1, 0, -1):
            codes, counts = np.unique(codes & _mask(lower), return_counts=True)
            levels.append(_level(codes, counts))
        return cls(levels[::-1])

    def probabilities(self, document: bytes) -> NDArray[np.float64]:
        """[bytes of the document]: p of each, given the order - 1 before it."""
        codes = _codes(document, self.order)
        result = np.full(len(codes), 1.0 / 256)
        for number, level in enumerate(self._levels, start=1):
            ngrams = codes & _mask(number)
            gamma = _look_up(level.contexts, level.gammas, ngrams >> np.uint64(8), absent=1.0)
            result = _look_up(level.codes, level.shares, ngrams, absent=0.0) + gamma * result
        return result

    def distribution(self, context: bytes) -> NDArray[np.float64]:
        """[256]: p of every next byte after `context`."""
        return np.array([self.probabilities(context + bytes([byte]))[-1] for byte in range(256)])

    def bits(self, document: bytes) -> float:
        return float(-np.log2(self.probabilities(document)).sum()) if document else 0.0


def _count(
    documents: Iterable[bytes], order: int, tell: Callable[[int], None] | None
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    codes, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    waiting: list[NDArray[np.uint64]] = []
    size = done = 0
    for document in documents:
        for start in range(0, len(document), CHUNK_BYTES):
            before = document[max(0, start - order + 1) : start].rjust(order - 1, b"\0") if order > 1 else b""
            waiting.append(_codes(document[start : start + CHUNK_BYTES], order, before=before))
            size += len(waiting[-1])
            if size >= CHUNK_BYTES:
                codes, counts = _merge(codes, counts, waiting)
                done, size, waiting = done + size, 0, []
                if tell is not None:
                    tell(done)
    return _merge(codes, counts, waiting) if waiting else (codes, counts)


def _merge(
    codes: NDArray[np.uint64], counts: NDArray[np.int64], waiting: list[NDArray[np.uint64]]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    new_codes, new_counts = np.unique(np.concatenate(waiting), return_counts=True)
    merged, places = np.unique(np.concatenate([codes, new_codes]), return_inverse=True)
    totals = np.zeros(len(merged), np.int64)
    np.add.at(totals, places, np.concatenate([counts, new_counts]))
    return merged, totals


def _codes(text: bytes, order: int, *, before: bytes | None = None) -> NDArray[np.uint64]:
    """[len(text)]: the n-gram that ends at each byte."""
    padded = np.frombuffer((b"\0" * (order - 1) if before is None else before) + text, dtype=np.uint8)
    codes = np.zeros(len(text), dtype=np.uint64)
    for place in range(order):
        codes = (codes << np.uint64(8)) | padded[place : place + len(text)].astype(np.uint64)
    return codes


def _level(codes: NDArray[np.uint64], counts: NDArray[np.int64]) -> _Level:
    discounts = _discounts(counts)
    kind = np.minimum(counts, 3)
    contexts, first = np.unique(codes >> np.uint64(8), return_index=True)
    totals = np.add.reduceat(counts, first).astype(np.float64)
    taken = np.add.reduceat(discounts[kind], first)
    sizes = np.diff(np.append(first, len(codes)))
    shares = (counts - discounts[kind]) / np.repeat(totals, sizes)
    return _Level(codes=codes, shares=shares, contexts=contexts, gammas=taken / totals)


def _discounts(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """[4]: what is taken off a count of 0, 1, 2, 3 or more. Where too few n-grams are rare, one discount serves all three."""
    n = [0] + [int((counts == c).sum()) for c in range(1, 5)]
    if min(n[1:]) > 0:
        y = n[1] / (n[1] + 2 * n[2])
        modified = [i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3)]
        if all(0 < d < i for i, d in zip((1, 2, 3), modified, strict=True)):
            return np.array([0.0, *modified])
    single = n[1] / (n[1] + 2 * n[2]) if n[1] and n[2] else 0.5
    return np.array([0.0, single, single, single])


def _look_up(
    keys: NDArray[np.uint64], values: NDArray[np.float64], wanted: NDArray[np.uint64], *, absent: float
) -> NDArray[np.float64]:
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], absent)


def _mask(order: int) -> np.uint64:
    return np.uint64((1 << (8 * order)) - 1)
