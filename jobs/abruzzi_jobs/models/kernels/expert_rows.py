"""A token's K rows of the experts, added: in order, in float32, without the copy of all rows that a gather makes. A row beyond the last
counts nothing: an expert that is not here.

Shapes: R rows, D features, T tokens, K rows a token.
"""

from __future__ import annotations

from typing import Any, cast

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


def sum_rows(rows_RD: Tensor, row_TK: Tensor) -> Tensor:
    rows_RD = rows_RD.contiguous()
    (T, K), D = row_TK.shape, rows_RD.shape[1]
    out_TD = rows_RD.new_empty(T, D)
    if T:
        cast(Any, _sum_rows)[(T, triton.cdiv(D, BLOCK))](
            rows_RD, row_TK.contiguous(), out_TD, len(rows_RD), D, K=K, BLOCK=BLOCK
        )
    return out_TD


@triton.jit
def _sum_rows(rows, places, out, count, size, K: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < size
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for k in tl.static_range(K):
        row = tl.load(places + token * K + k)
        here = column < tl.where(row < count, size, 0)
        total += tl.load(rows + row * size + column, mask=here, other=0.0).to(tl.float32)
    tl.store(out + token * size + column, total.to(out.dtype.element_ty), mask=inside)
