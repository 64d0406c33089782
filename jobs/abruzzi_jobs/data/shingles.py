"""Shingles: a text as the set of its runs of n words, each a 64-bit hash, computed for many texts at once.

Two texts have the same shingles where they differ in case, digits, punctuation, accents and white space only. Words are hashed
as polynomials over their bytes, read off one running sum, so that no word ever becomes a Python object.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BATCH_BYTES = 256 << 10
"""Texts hashed at once: their sums stay in a core's cache."""

_BASE = 0x9E3779B97F4A7C15
_BASE_INVERSE = pow(_BASE, -1, 1 << 64)
_STEP = 0xD1342543DE82EF95
_SEPARATOR = 0


def _byte_table(*, same_digits: bool) -> bytes:
    """ASCII letters become small ones, what joins no word becomes a separator; digits and bytes of other characters stay."""
    table = bytearray(range(256))
    for value in range(128):
        character = chr(value)
        table[value] = ord(character.lower()) if character.isalnum() else _SEPARATOR
        if same_digits and character.isdigit():
            table[value] = ord("0")
    return bytes(table)


_TABLE, _SAME_DIGITS = _byte_table(same_digits=False), _byte_table(same_digits=True)
_APART = re.compile(r"([\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff])")
"""Scripts that write no spaces: each character is a word."""
_NO_WORD = re.compile(r"\W|_")
_ACCENTS = re.compile(r"[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
_OTHER_DIGIT = re.compile(r"[^\D0-9]")


@dataclass(frozen=True, kw_only=True)
class Shingles:
    hashes: NDArray[np.uint64]
    """[S] of all texts, one after the other; a text that repeats itself has the same hash more than once."""
    starts: NDArray[np.int64]
    """[D + 1]: text d has hashes[starts[d] : starts[d + 1]]."""


def shingles(texts: Sequence[str], *, words: int, same_digits: bool = True) -> Shingles:
    """With `same_digits` all digits count as one. Of a text with fewer words than `words` there is one shingle, of all of them; of a text without words there is none."""
    contents = [normal_bytes(text, same_digits=same_digits) for text in texts]
    content = np.frombuffer(b"\0".join([*contents, b""]), dtype=np.uint8)
    text_ends = np.cumsum([len(c) + 1 for c in contents], dtype=np.int64)
    hashes, starts = _word_hashes(content)
    counts = np.diff(np.searchsorted(starts, text_ends), prepend=0)
    last = np.repeat(np.cumsum(counts), counts)
    """[W]: behind the last word of each word's text."""
    at = np.arange(len(hashes))
    inside = np.concatenate([hashes, np.zeros(words, np.uint64)])
    short = np.repeat(counts < words, counts)
    total = np.zeros(len(hashes), np.uint64)
    factor = 1
    for offset in range(words):
        term = inside[offset : offset + len(hashes)] * np.uint64(factor)
        if short.any():
            term[short & (at + offset >= last)] = 0
        total += term
        factor = factor * _STEP % (1 << 64)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    valid = (at + words <= last) | (short & (at == first))
    sizes = np.where(counts >= words, counts - words + 1, np.minimum(counts, 1))
    return Shingles(hashes=mix(total[valid]), starts=np.concatenate([[0], np.cumsum(sizes)]))


def batches(texts: Sequence[str], *, limit: int = BATCH_BYTES) -> Iterator[slice]:
    """Slices of `texts` with about `limit` characters each, at least one text."""
    start = size = 0
    for number, text in enumerate(texts):
        size += len(text)
        if size >= limit:
            yield slice(start, number + 1)
            start, size = number + 1, 0
    if start < len(texts):
        yield slice(start, len(texts))


def normal_bytes(text: str, *, same_digits: bool = True) -> bytes:
    """What of a text its shingles depend on: words in small letters between zero bytes."""
    if not text.isascii():
        text = _ACCENTS.sub("", unicodedata.normalize("NFD", text.lower()))
        text = _APART.sub(r" \1 ", _NO_WORD.sub(" ", text))
        if same_digits:
            text = _OTHER_DIGIT.sub("0", text)
    return text.encode("utf-8", "replace").translate(_SAME_DIGITS if same_digits else _TABLE)


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64 bits that spreads every bit over all of them (the finaliser of splitmix64)."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _word_hashes(content: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """(hash, first byte) of each word. A word's hash is Σ byte·base^k over its bytes, whatever stands before it."""
    within = content != _SEPARATOR
    edges = np.flatnonzero(np.diff(within, prepend=False))
    starts, ends = edges[0::2], edges[1::2]
    powers = _powers(_BASE, len(content))
    sums = np.zeros(len(content) + 1, np.uint64)
    np.cumsum(content * powers, out=sums[1:])
    back = _powers(_BASE_INVERSE, len(content))
    return mix((sums[ends] - sums[starts]) * back[starts]), starts


_KNOWN_POWERS: dict[int, NDArray[np.uint64]] = {}


def _powers(base: int, count: int) -> NDArray[np.uint64]:
    """base^0 … base^(count-1) modulo 2^64."""
    known = _KNOWN_POWERS.get(base)
    if known is None or len(known) < count:
        size = max(BATCH_BYTES * 2, count)
        known = np.full(size, base, np.uint64)
        known[0] = 1
        _KNOWN_POWERS[base] = known = np.multiply.accumulate(known)
    return known[:count]
