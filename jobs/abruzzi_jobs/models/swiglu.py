"""SwiGLU feed-forward with gate and up projections in one matrix product.

The activation keeps the product's output only, in eight bits where the policy says so, and recomputes silu in backward; what reads its output may have
that computed once more, too (memory/saved.py). Shapes: D hidden, I intermediate, G = 2·I.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from abruzzi_jobs.memory import in_eight_bits, recomputed, widened
from abruzzi_jobs.models.invariance import is_one_piece, row_pieces
from abruzzi_jobs.models.kernels import has_kernels
from abruzzi_jobs.models.linear import Linear


class SwiGLU(nn.Module):
    """down(silu(gate(x)) · up(x)); `gate_up_proj` holds the gate's rows, then the up projection's."""

    def __init__(self, hidden: int, intermediate: int, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.gate_up_proj = Linear(hidden, 2 * intermediate, device=device, dtype=dtype)
        self.down_proj = Linear(intermediate, hidden, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(swiglu(self.gate_up_proj(x)))


def swiglu(gate_up_G: Tensor) -> Tensor:
    """silu(first half) · second half of the last dimension."""
    if not torch.is_grad_enabled():
        return _gated(gate_up_G)
    in_eight_bits(gate_up_G)
    out: Tensor = _SwiGLU.apply(gate_up_G)
    recomputed("swiglu", (out,), _gated, (gate_up_G,))
    return out


def weighted_swiglu(gate_up_RG: Tensor, weight_R: Tensor) -> Tensor:
    """`swiglu` with a weight per row: the routing weight, applied where rows are narrowest."""
    if not torch.is_grad_enabled():
        return _weighted(gate_up_RG, weight_R)
    in_eight_bits(gate_up_RG)
    out: Tensor = _WeightedSwiGLU.apply(gate_up_RG, weight_R)
    recomputed("swiglu", (out,), _weighted, (gate_up_RG, weight_R))
    return out


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        return _gated(gate_up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        if has_kernels(gate_up):
            from abruzzi_jobs.models.kernels import swiglu as kernels

            return kernels.gated_backward(gate_up, None, grads[0])[0]
        grad_gate_up, _ = _swiglu_backward(gate_up, grads[0])
        return grad_gate_up


class _WeightedSwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up, weight)
        return _weighted(gate_up, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate_up, weight = ctx.saved_tensors
        if has_kernels(gate_up):
            from abruzzi_jobs.models.kernels import swiglu as kernels

            grad_gate_up, grad_weight = kernels.gated_backward(gate_up, weight, grads[0])
            assert grad_weight is not None
            return grad_gate_up, grad_weight.to(weight.dtype)
        grad_gate_up, hidden = _swiglu_backward(gate_up, grads[0] * weight.to(gate_up.dtype).unsqueeze(-1))
        grad_weight = torch.linalg.vecdot(widened(hidden), widened(grads[0]))
        return grad_gate_up, grad_weight.to(weight.dtype)


def _gated(gate_up: Tensor) -> Tensor:
    """silu(gate) · up, the same bits for a row whatever the number of rows and threads (invariance.py)."""
    if has_kernels(gate_up):
        from abruzzi_jobs.models.kernels import swiglu as kernels

        return kernels.gated(gate_up, None)
    rows = gate_up.view(-1, gate_up.shape[-1])
    if gate_up.is_cuda or is_one_piece(len(rows)):
        pieces = [gate_up]
    else:
        pieces = [rows[piece] for piece in row_pieces(rows.shape[0], rows.shape[1] // 2)]
    halves = [piece.chunk(2, -1) for piece in pieces]
    gated = [F.silu(gate).mul_(up) for gate, up in halves]
    return (gated[0] if len(gated) == 1 else torch.cat(gated)).view(*gate_up.shape[:-1], -1)


def _weighted(gate_up: Tensor, weight: Tensor) -> Tensor:
    if has_kernels(gate_up):
        from abruzzi_jobs.models.kernels import swiglu as kernels

        return kernels.gated(gate_up, weight)
    return _gated(gate_up).mul_(weight.to(gate_up.dtype).unsqueeze(-1))


def _swiglu_backward(gate_up: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """(gradient of gate_up, the recomputed output)."""
    gate, up = gate_up.chunk(2, -1)
    grad_gate_up = torch.empty_like(gate_up)
    grad_gate, grad_up = grad_gate_up.chunk(2, -1)
    activation = F.silu(gate)
    torch.mul(grad, activation, out=grad_up)
    torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=grad_gate)
    return grad_gate_up, activation.mul_(up)
