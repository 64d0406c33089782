"""fp8.py on CUDA: one read and one write of the tensor. Division is IEEE's, so that codes and scales are the CPU's bit for bit.

Shapes: R rows (all leading dimensions), D the last dimension, N tiles of it.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from abruzzi_jobs.memory.fp8 import E4M3_MAX, SMALLEST_SCALE, TILE, num_tiles

ROWS = 32
"""Of a program, which takes one tile of each."""


def store(x_D: Tensor) -> tuple[Tensor, Tensor]:
    """(codes_D, scales_N) of a contiguous tensor."""
    size = x_D.shape[-1]
    rows = x_D.numel() // max(size, 1)
    codes_D = torch.empty_like(x_D, dtype=torch.float8_e4m3fn)
    scales_N = x_D.new_empty(*x_D.shape[:-1], num_tiles(size), dtype=torch.float32)
    if x_D.numel():
        cast(Any, _store)[(triton.cdiv(rows, ROWS), num_tiles(size))](
            x_D, codes_D, scales_N, rows, size, E4M3_MAX, SMALLEST_SCALE, ROWS=ROWS, TILE=TILE
        )  # fmt: skip
    return codes_D, scales_N


def load(codes_D: Tensor, scales_N: Tensor, dtype: torch.dtype) -> Tensor:
    size = codes_D.shape[-1]
    rows = codes_D.numel() // max(size, 1)
    out_D = torch.empty_like(codes_D, dtype=dtype)
    if codes_D.numel():
        cast(Any, _load)[(triton.cdiv(rows, ROWS), num_tiles(size))](
            codes_D, scales_N, out_D, rows, size, ROWS=ROWS, TILE=TILE
        )
    return out_D


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _places(rows, size, ROWS: tl.constexpr, TILE: tl.constexpr):
    """(offsets, which are inside, offsets of the scales, which are inside)"""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    tile = tl.program_id(1)
    column = tile * TILE + tl.arange(0, TILE)
    inside = (row < rows)[:, None] & (column < size)[None, :]
    return row[:, None] * size + column[None, :], inside, row * tl.num_programs(1) + tile, row < rows


@triton.jit
def _store(
    x, codes, scales, rows, size, largest, smallest,
    ROWS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    places, inside, scale_places, rows_inside = _places(rows, size, ROWS, TILE)
    value = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    scale = _larger(tl.div_rn(tl.reduce(tl.abs(value), 1, _larger), largest), smallest)
    tl.store(scales + scale_places, scale, mask=rows_inside)
    tl.store(codes + places, tl.div_rn(value, scale[:, None]).to(tl.float8e4nv), mask=inside)


@triton.jit
def _load(
    codes, scales, out, rows, size, ROWS: tl.constexpr, TILE: tl.constexpr
):  # fmt: skip
    places, inside, scale_places, rows_inside = _places(rows, size, ROWS, TILE)
    scale = tl.load(scales + scale_places, mask=rows_inside, other=0.0)
    value = tl.load(codes + places, mask=inside, other=0.0).to(tl.float32) * scale[:, None]
    tl.store(out + places, value.to(out.dtype.element_ty), mask=inside)
