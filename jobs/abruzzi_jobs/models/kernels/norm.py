"""RMSNorm and its gradient. Rows are held in registers; the weight's gradient is summed over a fixed number of programs' rows, then over
programs: the same bits every time.

Shapes: R rows, D features, P programs.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

PROGRAMS = 264
"""Of the backward kernel: two for each multiprocessor of a Hopper."""


def normed(x: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """(x / rms(x) · weight in x's dtype, 1 / rms float32 [R])"""
    x = x.contiguous()
    size = x.shape[-1]
    rows = x.numel() // size
    out, rstd_R = torch.empty_like(x), x.new_empty(rows, dtype=torch.float32)
    block = triton.next_power_of_2(size)
    cast(Any, _normed)[(rows,)](x, weight_D, out, rstd_R, size, eps, BLOCK=block, num_warps=_warps(block))
    return out, rstd_R


def normed_backward(x: Tensor, weight_D: Tensor, rstd_R: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """(gradient of x, of the weight)"""
    x, grad = x.contiguous(), grad.contiguous()
    size = x.shape[-1]
    rows = x.numel() // size
    programs = min(rows, PROGRAMS)
    grad_x, partial_PD = torch.empty_like(x), x.new_empty(programs, size, dtype=torch.float32)
    block = triton.next_power_of_2(size)
    cast(Any, _normed_backward)[(programs,)](
        x, weight_D, rstd_R, grad, grad_x, partial_PD, rows, size, BLOCK=block, num_warps=_warps(block)
    )
    return grad_x, partial_PD.sum(0).to(weight_D.dtype)


def _warps(block: int) -> int:
    return max(1, min(16, block // 512))


@triton.jit
def _normed(x, weight, out, rstds, size, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < size
    value = tl.load(x + row * size + column, mask=inside, other=0.0).to(tl.float32)
    rstd = tl.rsqrt(tl.sum(value * value, 0) / size + eps)
    scale = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * size + column, (value * rstd * scale).to(out.dtype.element_ty), mask=inside)
    tl.store(rstds + row, rstd)


@triton.jit
def _normed_backward(x, weight, rstds, grad, grad_x, partial, rows, size, BLOCK: tl.constexpr):
    first = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < size
    scale = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for row in range(first, rows, tl.num_programs(0)):
        rstd = tl.load(rstds + row)
        x_hat = tl.load(x + row * size + column, mask=inside, other=0.0).to(tl.float32) * rstd
        got = tl.load(grad + row * size + column, mask=inside, other=0.0).to(tl.float32)
        total += got * x_hat
        scaled = got * scale
        mean = tl.sum(scaled * x_hat, 0) / size
        found = (scaled - x_hat * mean) * rstd
        tl.store(grad_x + row * size + column, found.to(grad_x.dtype.element_ty), mask=inside)
    tl.store(partial + first * size + column, total, mask=inside)
