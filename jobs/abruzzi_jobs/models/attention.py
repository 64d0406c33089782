"""Causal attention with the exact maximum logit of every head: one contract, three backends.

`attention(q, k, v, segment_ids, scale) -> (out, max_logit_per_head)`. The maximum is over all visible pairs of the softmax's
input, which is what QK-Clip needs (paper section 2.1). No T×T tensor outlives a stripe of rows.

- `blockwise`: online in stripes of query rows, gradients by recomputation from the row's log-sum-exp (FlashAttention's
  backward). Any device, packed documents, different head sizes for keys and values. Fastest on CPU, where PyTorch's SDPA takes the
  dense path for such shapes.
- `flex`: PyTorch's flex attention, compiled, which hands out the rows' maxima with the result; packed documents too. What half precision
  trains with on CUDA (flex.py).
- `sdpa`: PyTorch's fused kernel plus a pass for the maximum; used on CUDA without gradients or in float32, and without packing.

Shapes: B batch, H heads, L positions, D key dims, E value dims, N = B·H, S rows of a stripe, T its visible keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from abruzzi_jobs.memory import widened

Backend = Literal["auto", "blockwise", "flex", "sdpa"]

LOG2_E = 1 / math.log(2)

_STRIPE_ROWS = {"cpu": 64, "cuda": 512}
_STRIPE_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 28}
"""Logits held at once: on CPU about what the cache keeps between the passes over a stripe."""

_FLEX_ROWS = 128
"""A block of queries; shorter rows are not worth a kernel of their own."""

_OTHER_DOCUMENT = -1e30
"""Added to a logit, times the difference of segment ids: finite, so that equal ids add an exact zero."""


def attention(
    q_BHLD: Tensor,
    k_BHLD: Tensor,
    v_BHLE: Tensor,
    segment_ids_BL: Tensor | None,
    scale: float,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """(out_BHLE, max_logit_H in float32, without gradient). A position sees earlier ones of its own segment, and itself."""
    if backend == "auto":
        backend = _chosen(q_BHLD, segment_ids_BL)
    if backend == "flex":
        from abruzzi_jobs.models.flex import (
            flex_attention,
        )  # here: importing it takes seconds, which CPUs need not wait

        return flex_attention(q_BHLD, k_BHLD, v_BHLE, segment_ids_BL, scale)
    if backend == "sdpa":
        if segment_ids_BL is not None:
            raise ValueError(
                "attention backend sdpa: packed documents need the blockwise or the flex backend; leave backend at auto"
            )
        return _sdpa(q_BHLD, k_BHLD, v_BHLE, scale)
    return _Blockwise.apply(q_BHLD, k_BHLD, v_BHLE, segment_ids_BL, scale)  # type: ignore[no-any-return]


def _chosen(q_BHLD: Tensor, segment_ids_BL: Tensor | None) -> Backend:
    """Flex compiles for a shape: rows of training, which have one."""
    if not q_BHLD.is_cuda:
        return "blockwise"
    is_half = q_BHLD.dtype in (torch.bfloat16, torch.float16)
    if is_half and torch.is_grad_enabled() and q_BHLD.shape[2] >= _FLEX_ROWS:
        return "flex"
    return "sdpa" if segment_ids_BL is None else "blockwise"


@torch.no_grad()
def max_logit_per_head(q_BHLD: Tensor, k_BHLD: Tensor, segment_ids_BL: Tensor | None, scale: float) -> Tensor:
    """The exact maximum over visible pairs, stripe by stripe, float32 [H]."""
    B, H, L, _ = q_BHLD.shape
    q, k = q_BHLD.reshape(B * H, L, -1), k_BHLD.reshape(B * H, L, -1)
    segments_BL = None if segment_ids_BL is None else segment_ids_BL.to(torch.float32)
    row_max_NL = torch.empty(B * H, L, dtype=torch.float32, device=q.device)
    for heads, rows in _stripes(B * H, H, L, q.device):
        s_NST = _logits(q[heads, rows], k[heads, : rows.stop], scale)
        _mask_(s_NST, heads, rows, segments_BL, H)
        row_max_NL[heads, rows] = s_NST.amax(-1)
    return row_max_NL.view(B, H, L).amax((0, 2))


def _sdpa(q_BHLD: Tensor, k_BHLD: Tensor, v_BHLE: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    width = v_BHLE.shape[-1]
    if width < q_BHLD.shape[-1]:  # fused kernels want one head size
        v_BHLE = F.pad(v_BHLE, (0, q_BHLD.shape[-1] - width))
    out = F.scaled_dot_product_attention(q_BHLD, k_BHLD, v_BHLE, is_causal=True, scale=scale)
    return out[..., :width], max_logit_per_head(q_BHLD, k_BHLD, None, scale)


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_BHLD: Tensor, k_BHLD: Tensor, v_BHLE: Tensor, segment_ids_BL: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor]:
        B, H, L, _ = q_BHLD.shape
        N = B * H
        q, k, v = _prepared(q_BHLD, k_BHLD, v_BHLE, scale)
        segments_BL = None if segment_ids_BL is None else segment_ids_BL.to(q.dtype)
        out_NLE, lse_NL1 = torch.empty_like(v), q.new_empty(N, L, 1)
        row_max_NL1 = q.new_empty(N, L, 1)
        for heads, rows in _stripes(N, H, L, q.device):
            p_NST = torch.bmm(q[heads, rows], k[heads, : rows.stop].transpose(1, 2))
            _mask_(p_NST, heads, rows, segments_BL, H)
            max_NS1 = p_NST.amax(-1, keepdim=True)
            p_NST.sub_(max_NS1).exp2_()
            sum_NS1 = p_NST.sum(-1, keepdim=True)
            torch.div(torch.bmm(p_NST, v[heads, : rows.stop]), sum_NS1, out=out_NLE[heads, rows])
            torch.add(sum_NS1.log2_(), max_NS1, out=lse_NL1[heads, rows])
            row_max_NL1[heads, rows] = max_NS1
        # Positions before heads: the projection that follows reads, and keeps, the same storage.
        out_BLHE = out_NLE.view(B, H, L, -1).transpose(1, 2).to(v_BHLE.dtype).contiguous()
        ctx.save_for_backward(q_BHLD, k_BHLD, v_BHLE, out_BLHE, lse_NL1, segments_BL)
        ctx.scale = scale
        max_logit_H = row_max_NL1.view(B, H, L).amax((0, 2)).float() / LOG2_E
        ctx.mark_non_differentiable(max_logit_H)
        return out_BLHE.transpose(1, 2), max_logit_H

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q_BHLD, k_BHLD, v_BHLE, out_BLHE, lse_NL1, segments_BL = ctx.saved_tensors
        B, H, L, _ = q_BHLD.shape
        N = B * H
        q, k, v = _prepared(q_BHLD, k_BHLD, v_BHLE, ctx.scale)
        grad_out = widened(grads[0]).reshape(N, L, -1)
        delta_BHL = torch.linalg.vecdot(widened(grads[0]), widened(out_BLHE.transpose(1, 2)))
        delta_NL1 = delta_BHL.reshape(N, L, 1)
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for heads, rows in _stripes(N, H, L, q.device):
            k_NTD, v_NTE, g_NSE = k[heads, : rows.stop], v[heads, : rows.stop], grad_out[heads, rows]
            p_NST = torch.bmm(q[heads, rows], k_NTD.transpose(1, 2))
            _mask_(p_NST, heads, rows, segments_BL, H)
            p_NST.sub_(lse_NL1[heads, rows]).exp2_()
            # Not baddbmm_: on a strided slice it takes the heads one by one.
            grad_v[heads, : rows.stop].add_(torch.bmm(p_NST.transpose(1, 2), g_NSE))
            ds_NST = torch.bmm(g_NSE, v_NTE.transpose(1, 2)).sub_(delta_NL1[heads, rows]).mul_(p_NST)
            torch.mul(torch.bmm(ds_NST, k_NTD), ctx.scale, out=grad_q[heads, rows])
            grad_k[heads, : rows.stop].add_(torch.bmm(ds_NST.transpose(1, 2), q[heads, rows]))
        grad_k.div_(LOG2_E)
        grad_q, grad_k, grad_v = (x.view(B, H, L, -1).to(q_BHLD.dtype) for x in (grad_q, grad_k, grad_v))
        return grad_q, grad_k, grad_v, None, None


def _prepared(q_BHLD: Tensor, k_BHLD: Tensor, v_BHLE: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Wide, [N, L, …]. Logits in base 2: exp2 is three times as fast as exp on CPU, and exp a hundred times slower still where it underflows."""
    q, k, v = (widened(x).reshape(-1, *x.shape[2:]) for x in (q_BHLD, k_BHLD, v_BHLE))
    return q * (scale * LOG2_E), k, v


def _stripes(n: int, num_heads: int, length: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
    """(heads, query rows) in an order that keeps one group of heads in the cache. A group is whole batch rows, or part of one."""
    kind = device.type if device.type in _STRIPE_ROWS else "cpu"
    rows = min(_STRIPE_ROWS[kind], length)
    group = max(1, min(n, _STRIPE_ELEMENTS[kind] // (rows * length)))
    group = group // num_heads * num_heads or max(d for d in range(1, group + 1) if num_heads % d == 0)
    for first in range(0, n, group):
        heads = slice(first, min(first + group, n))
        for start in range(0, length, rows):
            yield heads, slice(start, min(start + rows, length))


def _mask_(s_NST: Tensor, heads: slice, rows: slice, segments_BL: Tensor | None, num_heads: int) -> None:
    """Hide the future (the stripe's last S×S square only) and other documents."""
    if segments_BL is not None:
        batch = slice(heads.start // num_heads, (heads.stop - 1) // num_heads + 1)
        distance_BST = segments_BL[batch, rows].unsqueeze(2) - segments_BL[batch, : rows.stop].unsqueeze(1)
        hidden_B1ST = distance_BST.abs_().mul_(_OTHER_DOCUMENT).unsqueeze(1)
        s_NST.view(len(hidden_B1ST), -1, *s_NST.shape[1:]).add_(hidden_B1ST)
    s_NST[:, :, rows.start :].add_(_future(rows.stop - rows.start, s_NST.dtype, str(s_NST.device)))


@lru_cache(maxsize=16)
def _future(size: int, dtype: torch.dtype, device: str) -> Tensor:
    """−inf above the diagonal [size, size]."""
    return torch.full((size, size), -math.inf, dtype=dtype, device=device).triu_(1)


def _logits(q: Tensor, k: Tensor, scale: float) -> Tensor:
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16):
        return torch.bmm(q, k.transpose(1, 2), out_dtype=torch.float32).mul_(scale)
    return torch.bmm(widened(q), widened(k).transpose(1, 2)).mul_(scale)
