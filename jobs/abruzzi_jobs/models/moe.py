"""Sparse mixture of experts: only routed experts are computed, in one grouped matrix product for each projection.

Tokens are sorted by expert, multiplied group by group, and added back; experts are 3D tensors [E, out, in] that can later be
split on dimension 0. Measured on CPU, forward and backward of `grouped_mm` run at the speed of one dense product of the same size.

Shapes: B batch, L positions, D hidden, I expert width, G = 2·I, E experts, K experts a token, T = B·L, R = T·K rows (and those that fill up).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from abruzzi_jobs.models.config import ModelConfig
from abruzzi_jobs.models.invariance import GROUP
from abruzzi_jobs.models.router import Router, Routing
from abruzzi_jobs.models.swiglu import SwiGLU, weighted_swiglu


class MixtureOfExperts(nn.Module):
    """Routed experts plus the shared ones, which see every token."""

    def __init__(self, config: ModelConfig, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.gate = Router(config, device=device)
        self.experts = Experts(config, device=device, dtype=dtype)
        self.shared_experts = (
            SwiGLU(
                config.hidden_size, config.moe_intermediate_size * config.num_shared_experts, device=device, dtype=dtype
            )
            if config.num_shared_experts
            else None
        )

    def forward(self, x_BLD: Tensor) -> tuple[Tensor, Routing]:
        routing = self.gate(x_BLD)
        out_BLD = self.experts(x_BLD.flatten(0, 1), routing).view_as(x_BLD)
        if self.shared_experts is not None:
            out_BLD = out_BLD + self.shared_experts(x_BLD)
        return out_BLD, routing


class Experts(nn.Module):
    """The routed experts' weights; gate rows come before up rows inside each expert."""

    def __init__(self, config: ModelConfig, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        E, D, I = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(E, 2 * I, D, device=device, dtype=dtype))
        self.down_proj = nn.Parameter(torch.empty(E, D, I, device=device, dtype=dtype))

    def forward(self, x_TD: Tensor, routing: Routing) -> Tensor:
        token_R, row_TK, place_R, ends_E = expert_rows(routing)
        rows_RD = _Dispatch.apply(x_TD, token_R, row_TK)
        weights_R = routing.weights_TK.flatten()[place_R]
        hidden_RI = weighted_swiglu(grouped_linear(rows_RD, self.gate_up_proj, ends_E), weights_R)
        return _Combine.apply(  # type: ignore[no-any-return]
            grouped_linear(hidden_RI, self.down_proj, ends_E), token_R, row_TK
        )


def expert_rows(routing: Routing) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(token_R, row_TK, place_R, ends_E): rows in expert order, where each token's K rows are, whose weight a row has (of T·K), ends of the experts.

    On CPU an expert's rows are filled up to a multiple of `GROUP`, so that a row is the same whatever others the expert has (invariance.py);
    what fills up is some token's row again, which nobody reads.
    """
    K = routing.experts_TK.shape[1]
    experts_R = routing.experts_TK.flatten()
    order_R = experts_R.argsort(stable=True)
    counts_E = routing.counts_E
    places = torch.arange(order_R.numel(), device=order_R.device)
    if not order_R.is_cuda:
        filled_E = (counts_E + GROUP - 1) // GROUP * GROUP
        before_E = (filled_E - counts_E).cumsum(0) - (filled_E - counts_E)
        places = places + before_E[experts_R[order_R]]
        filled_R = order_R.new_zeros(int(filled_E.sum()))
        filled_R[places] = order_R
        counts_E = filled_E
    else:
        filled_R = order_R
    row_R = torch.empty_like(order_R)
    row_R[order_R] = places
    return filled_R // K, row_R.view(-1, K), filled_R, counts_E.cumsum(0).to(torch.int32)


def grouped_linear(x_RX: Tensor, weight_EYX: Tensor, ends_E: Tensor) -> Tensor:
    """Rows up to ends_E[e] times weight e transposed. `grouped_mm` wants strides of whole 16 bytes, and bfloat16 on CUDA; the rest takes a
    loop."""
    unit = 16 // x_RX.element_size()
    supported = x_RX.dtype == torch.bfloat16 or (x_RX.dtype == torch.float32 and not x_RX.is_cuda)
    if supported and x_RX.shape[0] and x_RX.shape[1] % unit == 0 and weight_EYX.shape[1] % unit == 0:
        return F.grouped_mm(x_RX, weight_EYX.transpose(1, 2), offs=ends_E)
    counts = torch.diff(ends_E, prepend=ends_E.new_zeros(1)).tolist()
    parts = [F.linear(x, weight) for x, weight in zip(x_RX.split(counts), weight_EYX, strict=True)]
    return torch.cat(parts)


class _Dispatch(torch.autograd.Function):
    """Token rows in expert order. Backward gathers and adds each token's K rows: no atomic scatter, same bits every time."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, token_R: Tensor, row_TK: Tensor) -> Tensor:
        ctx.save_for_backward(row_TK)
        return x_TD.index_select(0, token_R)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (row_TK,) = ctx.saved_tensors
        return _sum_rows(grads[0], row_TK), None, None


class _Combine(torch.autograd.Function):
    """The transpose of `_Dispatch`: a token's output is the sum of its K rows."""

    @staticmethod
    def forward(ctx: Any, rows_RD: Tensor, token_R: Tensor, row_TK: Tensor) -> Tensor:
        ctx.save_for_backward(token_R, row_TK)
        return _sum_rows(rows_RD, row_TK)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        token_R, row_TK = ctx.saved_tensors
        grad_RD = grads[0].index_select(0, token_R)
        if row_TK.numel() < token_R.numel():  # rows that fill up have no gradient
            is_read_R = torch.zeros(len(token_R), 1, dtype=torch.bool, device=token_R.device)
            is_read_R[row_TK.flatten()] = True
            grad_RD *= is_read_R
        return grad_RD, None, None


def _sum_rows(rows_RD: Tensor, row_TK: Tensor) -> Tensor:
    T, K = row_TK.shape
    picked = rows_RD.index_select(0, row_TK.flatten()).view(T, K, -1)
    return picked[:, 0] if K == 1 else picked.sum(1)
