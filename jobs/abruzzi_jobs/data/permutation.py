"""A pseudo-random order of n things that is computed, not stored.

A balanced Feistel network over the next even number of bits, keyed by (seed, epoch), walked until the value falls below n
(Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Any position of any epoch costs O(1) time and memory,
so a loader's whole state is one integer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROUNDS = 6
_MASK_64 = (1 << 64) - 1


def permute(positions: NDArray[np.integer], *, size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Where each of `positions` (all in [0, size)) goes: a bijection of [0, size) for every (seed, epoch).

    Raises ValueError when size is not positive or a position is outside.
    """
    if size <= 0:
        raise ValueError(f"permute: size is {size}; it must be at least 1")
    if positions.size and (int(positions.min()) < 0 or int(positions.max()) >= size):
        raise ValueError(f"permute: positions must lie in [0, {size})")
    half_bits = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    keys = [_mix_integer(_mix_integer(seed) ^ _mix_integer((epoch << 8) | r)) for r in range(ROUNDS)]
    values = positions.astype(np.uint64)
    outside = np.ones(values.shape, dtype=bool)
    while outside.any():
        values[outside] = _feistel(values[outside], keys=keys, half_bits=half_bits)
        outside &= values >= np.uint64(size)
    return values.astype(np.int64)


def _feistel(values: NDArray[np.uint64], *, keys: list[int], half_bits: int) -> NDArray[np.uint64]:
    shift, mask = np.uint64(half_bits), np.uint64((1 << half_bits) - 1)
    left, right = values >> shift, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ np.uint64(key)) & mask)
    return (left << shift) | right


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser; uint64 arrays wrap silently."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _mix_integer(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & _MASK_64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return x ^ (x >> 31)
