"""Arithmetic whose rows do not depend on the batch, bit for bit: what a token's log-probability is must not depend on what is computed beside it.

Measured with PyTorch's MKL kernels in float32 (tests/unit/abruzzi_jobs/models/test_models_rows.py holds it; other libraries and devices may differ):

- A matrix product's row is the same whatever the number of rows, as long as each thread gets four of them: rows come in multiples of
  `ROWS`, experts' groups and heads in multiples of `GROUP`. With fewer, kernels for vectors are used, which add in another order.
- A product's sum over k depends on how far k goes, once it is longer than 128: sums over keys are taken in blocks of `BLOCK`, one after the other.
- `exp`, `log_softmax` and sums over the last dimension are the same everywhere. `silu`, `sigmoid` and `exp2` are computed by other code
  where less than two vectors of numbers are left: a thread's share must be whole rows (`row_pieces`), or `exp` is used.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

ROWS = 8
GROUP = 4
BLOCK = 64
"""Keys of a block, and positions of a page of the cache."""

_GRAIN = 32768
"""Elements below which PyTorch gives a pointwise operation to one thread (at::internal::GRAIN_SIZE)."""


def multiple(count: int, unit: int) -> int:
    """The smallest multiple of `unit` that is not below `count`."""
    return -(-count // unit) * unit


def is_one_piece(rows: int) -> bool:
    """Whether `row_pieces` cuts nothing: an even count, and two threads at most."""
    return rows % 2 == 0 and torch.get_num_threads() <= 2


def row_pieces(rows: int, width: int) -> Iterator[slice]:
    """Rows such that a pointwise operation on each piece is shared out among threads by whole rows of `width` elements. None where there are none."""
    if is_one_piece(rows):
        yield slice(0, rows)
        return
    threads = torch.get_num_threads()
    alone = max(1, _GRAIN // width)
    shared = threads * (_GRAIN // width + 1)
    start = 0
    while start < rows:
        count = shared if rows - start >= shared else min(alone, rows - start)
        yield slice(start, start + count)
        start += count


def exp2_rows_(x: Tensor) -> Tensor:
    """2^x in place, of a contiguous tensor."""
    if is_one_piece(x.numel() // x.shape[-1]):
        return x.exp2_()
    flat = x.view(-1, x.shape[-1])
    for piece in row_pieces(*flat.shape):
        flat[piece].exp2_()
    return x
