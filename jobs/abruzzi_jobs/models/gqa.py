"""Grouped-query attention (arXiv 2305.13245), as Llama has it: several query heads share one head of keys and values.

Rotated dimensions are interleaved pairs, as everywhere here and in GGUF files; folders of Hugging Face hold the same rows in halves
(`export/llama.py` turns one into the other).

Shapes: B batch, L positions, D hidden, H query heads, G key-value heads, K dimensions of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from abruzzi_jobs.models.attention import attention
from abruzzi_jobs.models.config import LlamaConfig
from abruzzi_jobs.models.decoder import Attention, CacheDims
from abruzzi_jobs.models.linear import Linear
from abruzzi_jobs.models.rope import rotate, softmax_scale


@dataclass
class KeyValueCache:
    """Rotated keys, and values, of every past position."""

    k_BGLK: Tensor
    v_BGLK: Tensor

    @property
    def length(self) -> int:
        return self.k_BGLK.shape[2]

    def append(self, k_BG1K: Tensor, v_BG1K: Tensor) -> None:
        self.k_BGLK = torch.cat((self.k_BGLK, k_BG1K), 2)
        self.v_BGLK = torch.cat((self.v_BGLK, v_BG1K), 2)


class GroupedQueryAttention(Attention):
    def __init__(self, config: LlamaConfig, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.config = config
        self.scale = softmax_scale(config)
        self.group = config.num_heads // config.num_kv_heads
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        width, kv_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, width, **where)
        self.k_proj = Linear(config.hidden_size, kv_width, **where)
        self.v_proj = Linear(config.hidden_size, kv_width, **where)
        self.o_proj = Linear(width, config.hidden_size, **where)

    def forward(
        self, x_BLD: Tensor, cis_LR: Tensor, segment_ids_BL: Tensor | None = None
    ) -> tuple[Tensor, Tensor, KeyValueCache]:
        q_BHLK, k_BGLK, v_BGLK = self._heads(x_BLD, cis_LR)
        out_BHLK, max_logit_H = attention(
            q_BHLK,
            k_BGLK.repeat_interleave(self.group, 1),
            v_BGLK.repeat_interleave(self.group, 1),
            segment_ids_BL,
            self.scale,
        )
        out_BLD = self.o_proj(out_BHLK.transpose(1, 2).flatten(2))
        return out_BLD, max_logit_H, KeyValueCache(k_BGLK, v_BGLK)

    def decode(self, x_B1D: Tensor, cis_1R: Tensor, cache: KeyValueCache) -> Tensor:
        q_BH1K, k_BG1K, v_BG1K = self._heads(x_B1D, cis_1R)
        cache.append(k_BG1K, v_BG1K)
        q_BGQK = q_BH1K.view(len(q_BH1K), self.config.num_kv_heads, self.group, -1)
        logits_BGQL = q_BGQK @ cache.k_BGLK.transpose(2, 3)
        weights_BGQL = torch.softmax(logits_BGQL.float() * self.scale, -1).to(x_B1D.dtype)
        return self.o_proj((weights_BGQL @ cache.v_BGLK).flatten(1).unsqueeze(1))

    def grouped(self, x_TD: Tensor, cis_TR: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q_HTK, k_GTK, v_GTK = (x.squeeze(0) for x in self._heads(x_TD.unsqueeze(0), cis_TR))
        q_TGQK = q_HTK.transpose(0, 1).unflatten(1, (self.config.num_kv_heads, self.group))
        return q_TGQK, k_GTK.transpose(0, 1), v_GTK.transpose(0, 1)

    def merged(self, out_TGQV: Tensor) -> Tensor:
        return self.o_proj(out_TGQV.flatten(1))

    def cache_dims(self) -> CacheDims:
        return CacheDims(self.config.num_kv_heads, self.config.head_dim, self.config.head_dim, own_values=True)

    def _heads(self, x_BLD: Tensor, cis_LR: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q_BHLK, k_BGLK, v_BGLK = (
            projection(x_BLD).unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        return _Rotate.apply(q_BHLK, cis_LR), _Rotate.apply(k_BGLK, cis_LR), v_BGLK


class _Rotate(torch.autograd.Function):
    """Interleaved pairs times cis, which has no gradient: backward turns back, and nothing but cis is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cis_LR: Tensor) -> Tensor:
        ctx.save_for_backward(cis_LR)
        return rotate(x, cis_LR)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (cis_LR,) = ctx.saved_tensors
        return rotate(grads[0], cis_LR.conj().resolve_conj()), None
