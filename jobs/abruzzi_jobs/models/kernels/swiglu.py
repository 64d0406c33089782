"""silu(gate) · up, times a weight of the row where there is one, and the gradients.

Shapes: R rows, I intermediate, G = 2·I.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


def gated(gate_up: Tensor, weight_R: Tensor | None) -> Tensor:
    gate_up = gate_up.contiguous()
    width = gate_up.shape[-1] // 2
    out = gate_up.new_empty(*gate_up.shape[:-1], width)
    rows = gate_up.numel() // (2 * width)
    if rows:
        cast(Any, _gated)[(rows, triton.cdiv(width, BLOCK))](
            gate_up, weight_R, out, width, WEIGHTED=weight_R is not None, BLOCK=BLOCK
        )
    return out


def gated_backward(gate_up: Tensor, weight_R: Tensor | None, grad: Tensor) -> tuple[Tensor, Tensor | None]:
    """(gradient of gate_up, of the weights float32 [R])"""
    gate_up, grad = gate_up.contiguous(), grad.contiguous()
    width = gate_up.shape[-1] // 2
    rows = gate_up.numel() // (2 * width)
    grad_gate_up = torch.empty_like(gate_up)
    grad_weight_R = None if weight_R is None else gate_up.new_empty(rows, dtype=torch.float32)
    if rows:
        cast(Any, _gated_backward)[(rows,)](
            gate_up, weight_R, grad, grad_gate_up, grad_weight_R, width, WEIGHTED=weight_R is not None, BLOCK=BLOCK
        )
    return grad_gate_up, grad_weight_R


@triton.jit
def _gated(gate_up, weight, out, width, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(gate_up + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
    value = gate * tl.sigmoid(gate) * up
    if WEIGHTED:
        value *= tl.load(weight + row).to(tl.float32)
    tl.store(out + row * width + column, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _gated_backward(
    gate_up, weight, grad, grad_gate_up, grad_weight, width,
    WEIGHTED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    factor = 1.0
    if WEIGHTED:
        factor = tl.load(weight + row).to(tl.float32)
    product = tl.zeros([BLOCK], dtype=tl.float32)
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = column < width
        place = row * 2 * width + column
        gate = tl.load(gate_up + place, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(gate_up + place + width, mask=inside, other=0.0).to(tl.float32)
        got = tl.load(grad + row * width + column, mask=inside, other=0.0).to(tl.float32)
        share = tl.sigmoid(gate)
        silu = gate * share
        if WEIGHTED:
            product += got * silu * up
        got *= factor
        grad_gate = got * up * (share + silu * (1.0 - share))
        tl.store(grad_gate_up + place, grad_gate.to(grad_gate_up.dtype.element_ty), mask=inside)
        tl.store(grad_gate_up + place + width, (got * silu).to(grad_gate_up.dtype.element_ty), mask=inside)
    if WEIGHTED:
        tl.store(grad_weight + row, tl.sum(product, 0))
