"""Sparse mixture of experts: only routed experts are computed, in one grouped matrix product for each projection.

Tokens are sorted by expert, multiplied group by group, and added back; experts are 3D tensors [E, out, in]; a rank may hold
a part of them, and exchange tokens with the ranks that have the others. Measured on CPU, forward and backward of `grouped_mm` run at the
speed of one dense product of the same size.

Shapes: B batch, L positions, D hidden, I expert width, G = 2·I, E experts, K experts a token, T = B·L, R = T·K rows (and those that fill up).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from abruzzi_jobs.memory import in_eight_bits
from abruzzi_jobs.models.config import ModelConfig
from abruzzi_jobs.models.invariance import GROUP
from abruzzi_jobs.models.kernels import has_kernels
from abruzzi_jobs.models.linear import GroupedLinear, current_queue
from abruzzi_jobs.models.router import Router, Routing
from abruzzi_jobs.models.swiglu import SwiGLU, weighted_swiglu


class Dispatched(NamedTuple):
    """Rows of tokens that came to this rank, from all ranks that share its experts."""

    rows_RD: Tensor
    experts_RK: Tensor
    """int64, counted among this rank's experts; their number where an expert is not here."""
    weights_RK: Tensor


class ExpertExchange(Protocol):
    """Between ranks that have each a part of the experts (abruzzi_jobs.distributed.exchange)."""

    def dispatch(self, x_TD: Tensor, routing: Routing) -> tuple[Dispatched, Any]:
        """Rows for this rank's experts, and what `combine` needs to send them back."""
        ...

    def combine(self, out_RD: Tensor, ticket: Any) -> Tensor:
        """out_TD: each token's sum over ranks."""
        ...


class MixtureOfExperts(nn.Module):
    """Routed experts plus the shared ones, which see every token."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        experts: range | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.gate = Router(config, device=device)
        self.experts = Experts(config, experts=experts, device=device, dtype=dtype)
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
    """The routed experts' weights, all or a part; gate rows come before up rows inside each expert."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        experts: range | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        D, I = config.hidden_size, config.moe_intermediate_size
        E = len(experts) if experts is not None else config.num_experts
        self.is_whole = config.num_experts == E
        self.exchange: ExpertExchange | None = None
        self.gate_up_proj = nn.Parameter(torch.empty(E, 2 * I, D, device=device, dtype=dtype))
        self.down_proj = nn.Parameter(torch.empty(E, D, I, device=device, dtype=dtype))

    def forward(self, x_TD: Tensor, routing: Routing) -> Tensor:
        if self.exchange is None:
            if not self.is_whole:
                raise ValueError("experts: this rank has a part of them; set `exchange` (distributed.share_experts)")
            return self._compute(x_TD, routing.experts_TK, routing.weights_TK, routing.counts_E)
        came, ticket = self.exchange.dispatch(x_TD, routing)
        E = len(self.gate_up_proj)
        counts_E = torch.bincount(came.experts_RK.flatten(), minlength=E + 1)[:E]
        out_RD = self._compute(came.rows_RD, came.experts_RK, came.weights_RK, counts_E)
        return self.exchange.combine(out_RD, ticket)

    def _compute(self, x_TD: Tensor, experts_TK: Tensor, weights_TK: Tensor, counts_E: Tensor) -> Tensor:
        partly = self.exchange is not None
        token_R, row_TK, place_R, ends_E = expert_rows(experts_TK, counts_E, partly=partly)
        rows_RD = gather_rows(x_TD, token_R, row_TK, partly=partly)
        in_eight_bits(rows_RD)
        weights_R = weights_TK.flatten()[place_R]
        hidden_RI = weighted_swiglu(grouped_linear(rows_RD, self.gate_up_proj, ends_E), weights_R)
        return sum_rows(grouped_linear(hidden_RI, self.down_proj, ends_E), token_R, row_TK, partly=partly)


def expert_rows(experts_TK: Tensor, counts_E: Tensor, *, partly: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(token_R, row_TK, place_R, ends_E): rows in expert order, where each token's K rows are, whose weight a row has (of T·K), ends of the experts.

    On CPU an expert's rows are filled up to a multiple of `GROUP`, so that a row is the same whatever others the expert has (invariance.py);
    what fills up is some token's row again, which nobody reads. `partly`: experts_TK may name expert E, which is not here; its rows are at R.
    """
    if not experts_TK.is_cuda:
        return _filled_expert_rows(experts_TK.numpy(), counts_E.numpy(), partly=partly)
    K = experts_TK.shape[1]
    experts_R = experts_TK.flatten()
    order_R = experts_R.argsort(stable=True)
    if partly:
        order_R = order_R[: int(counts_E.sum())]
    row_R = torch.full_like(experts_R, len(order_R))
    row_R[order_R] = torch.arange(order_R.numel(), device=order_R.device)
    return order_R // K, row_R.view(-1, K), order_R, counts_E.cumsum(0).to(torch.int32)


def _filled_expert_rows(
    experts_TK: NDArray[np.int64], counts_E: NDArray[np.int64], *, partly: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """In NumPy, whose calls take a fraction of PyTorch's time for the few rows of decoding, and whose sort of short integers is linear."""
    K = experts_TK.shape[1]
    experts_R = experts_TK.ravel()
    order_R = experts_R.astype(np.uint16).argsort(kind="stable")
    if partly:
        order_R = order_R[: counts_E.sum()]
    filled_E = (counts_E + (GROUP - 1)) // GROUP * GROUP
    ends_E = filled_E.cumsum()
    before_E = ends_E - filled_E - counts_E.cumsum() + counts_E
    places = np.arange(len(order_R)) + before_E[experts_R[order_R]]
    filled_R = np.zeros(ends_E[-1], np.int64)
    filled_R[places] = order_R
    row_R = np.full_like(experts_R, len(filled_R))
    row_R[order_R] = places
    found = (filled_R // K, row_R.reshape(-1, K), filled_R, ends_E.astype(np.int32))
    token_R, row_TK, place_R, ends = map(torch.from_numpy, found)
    return token_R, row_TK, place_R, ends


def grouped_linear(x_RX: Tensor, weight_EYX: Tensor, ends_E: Tensor) -> Tensor:
    """Rows up to ends_E[e] times weight e transposed."""
    queue = current_queue()
    if queue is not None:
        return GroupedLinear.apply(x_RX, weight_EYX, ends_E, _grouped_product, queue)  # type: ignore[no-any-return]
    return _grouped_product(x_RX, weight_EYX, ends_E)


def _grouped_product(x_RX: Tensor, weight_EYX: Tensor, ends_E: Tensor) -> Tensor:
    """`grouped_mm` wants strides of whole 16 bytes, and bfloat16 on CUDA; the rest takes a loop."""
    unit = 16 // x_RX.element_size()
    supported = x_RX.dtype == torch.bfloat16 or (x_RX.dtype == torch.float32 and not x_RX.is_cuda)
    if supported and x_RX.shape[0] and x_RX.shape[1] % unit == 0 and weight_EYX.shape[1] % unit == 0:
        return F.grouped_mm(x_RX, weight_EYX.transpose(1, 2), offs=ends_E)
    counts = torch.diff(ends_E, prepend=ends_E.new_zeros(1)).tolist()
    parts = [F.linear(x, weight) for x, weight in zip(x_RX.split(counts), weight_EYX, strict=True)]
    return torch.cat(parts)


def gather_rows(x_TD: Tensor, token_R: Tensor, row_TK: Tensor, *, partly: bool = False) -> Tensor:
    """Row r is token token_R[r]; row_TK says where a token's rows are, `partly` R where it has fewer than K. Backward gathers and adds each
    token's rows: no atomic scatter, same bits every time."""
    if not torch.is_grad_enabled():
        return x_TD.index_select(0, token_R)
    return _Gather.apply(x_TD, token_R, row_TK, partly)  # type: ignore[no-any-return]


def sum_rows(rows_RD: Tensor, token_R: Tensor, row_TK: Tensor, *, partly: bool = False) -> Tensor:
    """The transpose of `gather_rows`: a token's output is the sum of its rows."""
    if not torch.is_grad_enabled():
        return _summed(rows_RD, row_TK, partly)
    return _Sum.apply(rows_RD, token_R, row_TK, partly)  # type: ignore[no-any-return]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, token_R: Tensor, row_TK: Tensor, partly: bool) -> Tensor:
        ctx.save_for_backward(row_TK)
        ctx.partly = partly
        return x_TD.index_select(0, token_R)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (row_TK,) = ctx.saved_tensors
        return _summed(grads[0], row_TK, ctx.partly), None, None, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_RD: Tensor, token_R: Tensor, row_TK: Tensor, partly: bool) -> Tensor:
        ctx.save_for_backward(token_R, row_TK)
        ctx.partly = partly
        return _summed(rows_RD, row_TK, partly)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        token_R, row_TK = ctx.saved_tensors
        grad_RD = grads[0].index_select(0, token_R)
        R = len(token_R)
        if ctx.partly or row_TK.numel() < R:  # rows that fill up have no gradient
            is_read_R = torch.zeros(R + 1, dtype=torch.bool, device=token_R.device)
            is_read_R[row_TK.flatten()] = True
            if grad_RD.is_cuda:  # how many there are, nobody waits to know
                grad_RD *= is_read_R[:R].unsqueeze(1)
            else:
                grad_RD.index_fill_(0, is_read_R[:R].logical_not().nonzero().squeeze(1), 0.0)
        return grad_RD, None, None, None


def _summed(rows_RD: Tensor, row_TK: Tensor, partly: bool) -> Tensor:
    """In one pass, without the copy of all rows that a gather makes."""
    if has_kernels(rows_RD):
        from abruzzi_jobs.models.kernels.expert_rows import sum_rows

        return sum_rows(rows_RD, row_TK)
    (T, K), R = row_TK.shape, len(rows_RD)
    if T == 0 or R == 0:
        return rows_RD.new_zeros(T, rows_RD.shape[1])
    if not partly:
        if K == 1:
            return rows_RD.index_select(0, row_TK.flatten())
        return F.embedding_bag(row_TK, rows_RD.contiguous(), mode="sum")
    is_here_TK = row_TK < R
    counts_T = is_here_TK.sum(1)
    return F.embedding_bag(row_TK[is_here_TK], rows_RD.contiguous(), counts_T.cumsum(0) - counts_T, mode="sum")
