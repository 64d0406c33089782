"""Causal attention of sequences that stand one after the other, without padding; a sequence's result does not depend on its neighbours, bit for bit.

Keys are taken in blocks from the sequence's own start, maxima over all, sums block after block: the order that decoding against a cache
keeps, too (`paged.py`), so that both give the same numbers (see `invariance.py`). Of sequences that end within it the first block is cut to `SHORT`. Grouped: Q query heads read one head of keys and values; values may be narrower.

Shapes: T rows (all sequences), G key heads, Q query heads of each, D key dims, E value dims; inside a batch of sequences with equally many
blocks: N = sequences · G, L positions, K keys (whole blocks), M = rows of a stripe · Q, S its visible keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from abruzzi_jobs.memory import widened
from abruzzi_jobs.models.attention import LOG2_E
from abruzzi_jobs.models.invariance import BLOCK, ROWS, exp2_rows_, multiple

SHORT = 32
"""Two vectors of sixteen numbers: with fewer, `exp2` is other code."""
_STRIPE_ELEMENTS = 1 << 20
"""Logits held at once."""


@dataclass(frozen=True)
class Batch:
    """Sequences with equally many blocks, or all short."""

    index_BK: Tensor
    """Rows; a sequence's last one again where it is shorter: later than all its own, so that causality hides it."""
    is_own_BK: Tensor
    length: int
    """L: positions up to which there are queries, as few as the longest sequence allows. Keys are whole blocks, since sums over them are."""
    own_rows: Tensor
    """int64, of all its sequences, one after the other."""
    own_of_BL: Tensor
    """Where they stand among B · L."""
    own_of_BK: Tensor

    @property
    def index_BL(self) -> Tensor:
        return self.index_BK[:, : self.length]

    @property
    def is_own_BL(self) -> Tensor:
        return self.is_own_BK[:, : self.length]


@dataclass(frozen=True)
class RaggedLayout:
    """Where sequences lie in the rows. Made once for all layers."""

    rows: int
    taken: int
    """Rows of sequences; those behind them fill up."""
    batches: tuple[Batch, ...]

    @classmethod
    def of(cls, lengths: Sequence[int], rows: int, *, heads: int, device: Any) -> RaggedLayout:
        starts, start = [], 0
        for length in lengths:
            starts.append(start)
            start += length
        order = sorted((index for index, length in enumerate(lengths) if length), key=lambda i: lengths[i])
        batches: list[Batch] = []
        for width, members in groupby(order, key=lambda i: _width(lengths[i])):
            most = max(1, _STRIPE_ELEMENTS // (heads * min(BLOCK, width) * width))
            there = list(members)
            for first in range(0, len(there), most):
                part = there[first : first + most]
                start_B1 = torch.tensor([starts[i] for i in part], device=device).unsqueeze(1)
                length_B1 = torch.tensor([lengths[i] for i in part], device=device).unsqueeze(1)
                position_K = torch.arange(width, device=device)
                index_BK = start_B1 + torch.minimum(position_K, length_B1 - 1)
                is_own_BK, longest = position_K < length_B1, multiple(lengths[part[-1]], ROWS)
                own, own_of_BL = (is_own_BK[:, :size].flatten().nonzero().squeeze(1) for size in (width, longest))
                batches.append(Batch(index_BK, is_own_BK, longest, index_BK.flatten()[own], own_of_BL, own))
        return cls(rows, sum(lengths), tuple(batches))


def ragged_attention(
    q_TGQD: Tensor, k_TGD: Tensor, v_TGE: Tensor, layout: RaggedLayout, scale: float
) -> tuple[Tensor, Tensor]:
    """(out_TGQE, maximum logit of each head [G·Q] in float32, without gradient). Rows of no sequence give zeros."""
    out_TGQE, max_logit_H = _Ragged.apply(widened(q_TGQD), widened(k_TGD), widened(v_TGE), layout, scale)
    return out_TGQE.to(v_TGE.dtype), max_logit_H


class _Ragged(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_TGQD: Tensor, k_TGD: Tensor, v_TGE: Tensor, layout: RaggedLayout, scale: float
    ) -> tuple[Tensor, Tensor]:
        T, G, Q, _ = q_TGQD.shape
        E = v_TGE.shape[-1]
        out_TGQE = _rows_to_fill(q_TGQD.new_empty(T, G, Q, E), layout)
        lse_TGQ1 = _rows_to_fill(q_TGQD.new_empty(T, G, Q, 1), layout)
        max_GQ = q_TGQD.new_full((G, Q), -torch.inf)
        for batch in layout.batches:
            B, L = batch.index_BL.shape
            q_NXD = _query(q_TGQD, batch, scale)
            k_NKD, v_NKE = _keys(k_TGD, batch), _keys(v_TGE, batch)
            out_NXE, lse_NX1 = q_NXD.new_empty(*q_NXD.shape[:2], E), q_NXD.new_empty(*q_NXD.shape[:2], 1)
            for rows, keys in _stripes(L, Q):
                logits_NMS = _logits(q_NXD, k_NKD, rows, keys, Q)
                max_NM1 = logits_NMS.amax(-1, keepdim=True)
                out_NXE[:, rows], total_NM1 = weighted_blocks(exp2_rows_(logits_NMS.sub_(max_NM1)), v_NKE[:, :keys])
                lse_NX1[:, rows] = total_NM1.log2_().add_(max_NM1)
                max_GQ = torch.maximum(max_GQ, max_NM1.view(B, G, -1, Q).amax((0, 2)))
            _scatter_(out_TGQE, out_NXE.view(B, G, L, Q, E), batch)
            _scatter_(lse_TGQ1, lse_NX1.view(B, G, L, Q, 1), batch)
        ctx.save_for_backward(q_TGQD, k_TGD, v_TGE, out_TGQE, lse_TGQ1)
        ctx.layout, ctx.scale = layout, scale
        max_logit_H = max_GQ.flatten().float() / LOG2_E
        ctx.mark_non_differentiable(max_logit_H)
        return out_TGQE, max_logit_H

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q_TGQD, k_TGD, v_TGE, out_TGQE, lse_TGQ1 = ctx.saved_tensors
        Q = q_TGQD.shape[2]
        delta_TGQ1 = torch.linalg.vecdot(grads[0], out_TGQE).unsqueeze_(-1)
        grad_q, grad_k, grad_v = (_rows_to_fill(torch.empty_like(x), ctx.layout) for x in (q_TGQD, k_TGD, v_TGE))
        for batch in ctx.layout.batches:
            B, L = batch.index_BL.shape
            q_NXD = _query(q_TGQD, batch, ctx.scale)
            k_NKD, v_NKE = _keys(k_TGD, batch), _keys(v_TGE, batch)
            own_BL = batch.is_own_BL.view(B, 1, L, 1, 1)
            # Rows that repeat a sequence's last have no gradient, and give none to the keys that repeat.
            grad_NXE, lse_NX1, delta_NX1 = (
                x.index_select(0, batch.index_BL.flatten()).view(B, L, *x.shape[1:]).transpose(1, 2)
                for x in (grads[0], lse_TGQ1, delta_TGQ1)
            )
            grad_NXE, delta_NX1 = ((x * own_BL).flatten(0, 1).flatten(1, 2) for x in (grad_NXE, delta_NX1))
            lse_NX1 = lse_NX1.flatten(0, 1).flatten(1, 2)
            grad_q_NXD, grad_k_NKD, grad_v_NKE = (
                torch.empty_like(q_NXD),
                torch.zeros_like(k_NKD),
                torch.zeros_like(v_NKE),
            )
            for rows, keys in _stripes(L, Q):
                p_NMS = _logits(q_NXD, k_NKD, rows, keys, Q).sub_(lse_NX1[:, rows]).exp2_()
                grad_v_NKE[:, :keys] += torch.bmm(p_NMS.transpose(1, 2), grad_NXE[:, rows])
                ds_NMS = (
                    torch.bmm(grad_NXE[:, rows], v_NKE[:, :keys].transpose(1, 2)).sub_(delta_NX1[:, rows]).mul_(p_NMS)
                )
                torch.mul(torch.bmm(ds_NMS, k_NKD[:, :keys]), ctx.scale, out=grad_q_NXD[:, rows])
                grad_k_NKD[:, :keys] += torch.bmm(ds_NMS.transpose(1, 2), q_NXD[:, rows])
            grad_k_NKD.div_(LOG2_E)
            _scatter_(grad_q, grad_q_NXD.view(B, -1, L, *q_TGQD.shape[2:]), batch)
            _scatter_(grad_k, grad_k_NKD.view(B, -1, *k_NKD.shape[1:]), batch)
            _scatter_(grad_v, grad_v_NKE.view(B, -1, *v_NKE.shape[1:]), batch)
        return grad_q, grad_k, grad_v, None, None


def weighted_blocks(p_NMS: Tensor, v_NSE: Tensor) -> tuple[Tensor, Tensor]:
    """(Σ p·v / Σ p, Σ p with a last dimension of 1): block after block of keys, the order that all attention here keeps."""
    # Sums over a row are made in another order where it is shorter.
    whole_NMS = F.pad(p_NMS, (0, SHORT)) if p_NMS.shape[-1] == SHORT else p_NMS
    sums_NMJ = whole_NMS.view(*p_NMS.shape[:2], -1, BLOCK).sum(-1)
    out_NME = torch.bmm(p_NMS[..., :BLOCK], v_NSE[:, :BLOCK])
    total_NM = sums_NMJ[..., 0].clone()
    for block in range(1, sums_NMJ.shape[-1]):
        keys = slice(block * BLOCK, (block + 1) * BLOCK)
        out_NME += torch.bmm(p_NMS[..., keys], v_NSE[:, keys])
        total_NM += sums_NMJ[..., block]
    return out_NME.div_(total_NM.unsqueeze(-1)), total_NM.unsqueeze(-1)


def _query(q_TGQD: Tensor, batch: Batch, scale: float) -> Tensor:
    """[N, L·Q, D], times the scale, for logits in base 2."""
    B, L = batch.index_BL.shape
    picked = q_TGQD.index_select(0, batch.index_BL.flatten()).mul_(scale * LOG2_E).view(B, L, *q_TGQD.shape[1:])
    return picked.transpose(1, 2).flatten(0, 1).flatten(1, 2)


def _keys(x_TGX: Tensor, batch: Batch) -> Tensor:
    """[N, K, X]"""
    B, K = batch.index_BK.shape
    return x_TGX.index_select(0, batch.index_BK.flatten()).view(B, K, *x_TGX.shape[1:]).transpose(1, 2).flatten(0, 1)


def _rows_to_fill(x_T: Tensor, layout: RaggedLayout) -> Tensor:
    """For `_scatter_` of all batches; zeros where there are no sequences."""
    x_T[layout.taken :].zero_()
    return x_T


def _scatter_(out_T: Tensor, x_BGX: Tensor, batch: Batch) -> None:
    """X: L or K positions."""
    own = batch.own_of_BL if x_BGX.shape[2] == batch.length else batch.own_of_BK
    out_T.index_copy_(0, batch.own_rows, x_BGX.transpose(1, 2).flatten(0, 1).index_select(0, own))


def _width(length: int) -> int:
    return SHORT if length <= SHORT else multiple(length, BLOCK)


def _stripes(length: int, queries: int) -> Iterator[tuple[slice, int]]:
    """(rows of L·Q, keys that the last of them sees): blocks, and of the first its first `SHORT` rows by themselves, which see no more than so many."""
    start = 0
    for keys in (SHORT, *range(BLOCK, multiple(length, BLOCK) + 1, BLOCK)):
        if start < length:
            yield slice(start * queries, min(keys, length) * queries), keys
        start = keys


def _logits(q_NXD: Tensor, k_NKD: Tensor, rows: slice, keys: int, queries: int) -> Tensor:
    logits_NMS = torch.bmm(q_NXD[:, rows], k_NKD[:, :keys].transpose(1, 2))
    last_NMS = logits_NMS[..., -BLOCK:]
    future = _future(queries, logits_NMS.dtype, str(logits_NMS.device))
    first = rows.start % (BLOCK * queries)
    last_NMS += future[first : first + last_NMS.shape[1], : last_NMS.shape[2]]
    return logits_NMS


@lru_cache(maxsize=16)
def _future(queries: int, dtype: torch.dtype, device: str) -> Tensor:
    """−inf where a key comes after the row's position [BLOCK · Q, BLOCK]."""
    hidden = torch.full((BLOCK, BLOCK), -torch.inf, dtype=dtype, device=device).triu_(1)
    return hidden.repeat_interleave(queries, 0)
