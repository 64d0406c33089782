"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434; paper section 2.3).

Queries and keys/values go through low-rank latents; a head's query and key are a part without position (nope) and a rotary part
(rope), the rotary key being shared by all heads. Row layout as published: q_b is nope then rope inside each head, kv_b is
k_nope then v inside each head, kv_a is the latent then the rotary key.

Shapes: B batch, L positions, D hidden, H heads, X query latent, C kv latent, N nope dims, R rope dims, K = N + R, V value dims.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from abruzzi_jobs.memory import recomputed
from abruzzi_jobs.models.attention import attention
from abruzzi_jobs.models.config import ModelConfig
from abruzzi_jobs.models.decoder import Attention, CacheDims
from abruzzi_jobs.models.linear import Linear
from abruzzi_jobs.models.norm import RMSNorm
from abruzzi_jobs.models.rope import rotate, softmax_scale

LATENT_NORM_EPS = 1e-6
"""DeepSeek's published code leaves the latents' norms at this default, whatever the configuration says."""


@dataclass
class LatentCache:
    """What decoding keeps of one layer: the normalised latent and the rotated shared key of every past position."""

    latent_BLC: Tensor
    k_rope_BLR: Tensor

    @property
    def length(self) -> int:
        return self.latent_BLC.shape[1]

    def append(self, latent_BLC: Tensor, k_rope_BLR: Tensor) -> None:
        self.latent_BLC = torch.cat((self.latent_BLC, latent_BLC), 1)
        self.k_rope_BLR = torch.cat((self.k_rope_BLR, k_rope_BLR), 1)


class LatentAttention(Attention):
    """MLA; `forward` for training and prefill, `decode` for one more position against a `LatentCache`."""

    def __init__(self, config: ModelConfig, *, device: Any = None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.config = config
        self.scale = softmax_scale(config)
        where: dict[str, Any] = {"device": device, "dtype": dtype}
        heads = config.num_heads
        self.q_a_proj = Linear(config.hidden_size, config.q_lora_rank, **where)
        self.q_a_layernorm = RMSNorm(config.q_lora_rank, eps=LATENT_NORM_EPS, **where)
        self.q_b_proj = Linear(config.q_lora_rank, heads * config.qk_head_dim, **where)
        self.kv_a_proj_with_mqa = Linear(config.hidden_size, config.kv_lora_rank + config.qk_rope_head_dim, **where)
        self.kv_a_layernorm = RMSNorm(config.kv_lora_rank, eps=LATENT_NORM_EPS, **where)
        self.kv_b_proj = Linear(config.kv_lora_rank, heads * (config.qk_nope_head_dim + config.v_head_dim), **where)
        self.o_proj = Linear(heads * config.v_head_dim, config.hidden_size, **where)

    def forward(
        self, x_BLD: Tensor, cis_LR: Tensor, segment_ids_BL: Tensor | None = None
    ) -> tuple[Tensor, Tensor, LatentCache]:
        """(output_BLD, max_logit_H, cache of these positions)."""
        B, L, _ = x_BLD.shape
        query_latent_BLX, latent_BLC, k_rope_BLR = self._latents(x_BLD)
        q_BHLK, k_BHLK, v_BHLV, rotated_BLR = _Assemble.apply(
            self.q_b_proj(query_latent_BLX), self.kv_b_proj(latent_BLC), k_rope_BLR, cis_LR, self.config
        )
        recomputed(
            "mla_up_projection",
            (q_BHLK, k_BHLK, v_BHLV),
            self._up_projected,
            (query_latent_BLX, latent_BLC, k_rope_BLR, cis_LR),
        )
        out_BHLV, max_logit_H = attention(q_BHLK, k_BHLK, v_BHLV, segment_ids_BL, self.scale)
        out_BLD = self.o_proj(out_BHLV.transpose(1, 2).reshape(B, L, -1))
        return out_BLD, max_logit_H, LatentCache(latent_BLC, rotated_BLR)

    def decode(self, x_B1D: Tensor, cis_1R: Tensor, cache: LatentCache) -> Tensor:
        """One position against the cache. kv_b is absorbed into query and output, so keys and values are never expanded."""
        config, B = self.config, x_B1D.shape[0]
        query_latent, latent_B1C, k_rope_B1R = self._latents(x_B1D)
        query = self.q_b_proj(query_latent)
        cache.append(latent_B1C, rotate(k_rope_B1R, cis_1R))
        q_BHK = query.view(B, config.num_heads, -1)
        q_nope_BHN, q_rope_BHR = q_BHK.split((config.qk_nope_head_dim, config.qk_rope_head_dim), -1)
        k_HNC, v_HVC = self._absorbed()
        q_latent_BHC = torch.einsum("bhn,hnc->bhc", q_nope_BHN, k_HNC)
        logits_BHL = q_latent_BHC @ cache.latent_BLC.transpose(1, 2)
        logits_BHL += rotate(q_rope_BHR, cis_1R) @ cache.k_rope_BLR.transpose(1, 2)
        weights_BHL = torch.softmax(logits_BHL.float() * self.scale, -1).to(x_B1D.dtype)
        out_BHV = torch.einsum("bhc,hvc->bhv", weights_BHL @ cache.latent_BLC, v_HVC)
        return self.o_proj(out_BHV.reshape(B, 1, -1))

    def grouped(self, x_TD: Tensor, cis_TR: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config = self.config
        query_latent_TX, latent_TC, k_rope_TR = self._latents(x_TD)
        query_TQ = self.q_b_proj(query_latent_TX)
        q_nope_THN, q_rope_THR = query_TQ.unflatten(-1, (config.num_heads, -1)).split(
            (config.qk_nope_head_dim, config.qk_rope_head_dim), -1
        )
        q_latent_HTC = torch.bmm(q_nope_THN.transpose(0, 1), self._absorbed()[0])
        q_THK = torch.cat((q_latent_HTC.transpose(0, 1), rotate(q_rope_THR, cis_TR.unsqueeze(1))), -1)
        k_TK = torch.cat((latent_TC, rotate(k_rope_TR, cis_TR)), -1)
        return q_THK.unsqueeze(1), k_TK.unsqueeze(1), latent_TC.unsqueeze(1)

    def merged(self, out_TGQV: Tensor) -> Tensor:
        out_HTV = torch.bmm(out_TGQV.squeeze(1).transpose(0, 1), self._absorbed()[1].transpose(1, 2))
        return self.o_proj(out_HTV.transpose(0, 1).flatten(1))

    def cache_dims(self) -> CacheDims:
        latent = self.config.kv_lora_rank
        return CacheDims(1, latent + self.config.qk_rope_head_dim, latent, own_values=False)

    def _absorbed(self) -> tuple[Tensor, Tensor]:
        """kv_b as (k_HNC, v_HVC)."""
        k_HNC, v_HVC = self.kv_b_proj.weight.view(self.config.num_heads, -1, self.config.kv_lora_rank).split(
            (self.config.qk_nope_head_dim, self.config.v_head_dim), 1
        )
        return k_HNC, v_HVC

    def _up_projected(
        self, query_latent_BLX: Tensor, latent_BLC: Tensor, k_rope_BLR: Tensor, cis_LR: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values once more."""
        query_BLQ = F.linear(query_latent_BLX, self.q_b_proj.weight)
        kv_BLJ = F.linear(latent_BLC, self.kv_b_proj.weight)
        return _assembled(query_BLQ, kv_BLJ, k_rope_BLR, cis_LR, self.config)[:3]

    def _latents(self, x_BLD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(the query's, that of keys and values, the rotary key); latents are normalised."""
        query_latent = self.q_a_layernorm(self.q_a_proj(x_BLD))
        latent, k_rope = self.kv_a_proj_with_mqa(x_BLD).split(
            (self.config.kv_lora_rank, self.config.qk_rope_head_dim), -1
        )
        return query_latent, self.kv_a_layernorm(latent), k_rope


class _Assemble(torch.autograd.Function):
    """Rotate, broadcast the shared key and lay heads out for attention, with one write for each element.

    (query_BLQ, kv_BLJ, k_rope_BLR) → (q_BHLK, k_BHLK, v_BHLV, rotated k_rope_BLR without gradient).
    """

    @staticmethod
    def forward(
        ctx: Any, query_BLQ: Tensor, kv_BLJ: Tensor, k_rope_BLR: Tensor, cis_LR: Tensor, config: ModelConfig
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        q_BHLK, k_BHLK, v_BHLV, rotated_BLR = _assembled(query_BLQ, kv_BLJ, k_rope_BLR, cis_LR, config)
        ctx.save_for_backward(cis_LR)
        ctx.nope = config.qk_nope_head_dim
        ctx.mark_non_differentiable(rotated_BLR)
        return q_BHLK, k_BHLK, v_BHLV, rotated_BLR

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        grad_q, grad_k, grad_v, _ = grads
        (cis_LR,) = ctx.saved_tensors
        N, back_LR = ctx.nope, cis_LR.conj().resolve_conj()
        B, H, L, K = grad_q.shape
        grad_query = grad_q.new_empty(B, L, H, K)
        grad_kv = grad_q.new_empty(B, L, H, N + grad_v.shape[-1])
        grad_query[..., :N].copy_(grad_q[..., :N].transpose(1, 2))
        grad_query[..., N:].copy_(rotate(grad_q[..., N:], back_LR).transpose(1, 2))
        grad_kv[..., :N].copy_(grad_k[..., :N].transpose(1, 2))
        grad_kv[..., N:].copy_(grad_v.transpose(1, 2))
        grad_k_rope = rotate(grad_k[..., N:].sum(1), back_LR)
        return grad_query.view(B, L, -1), grad_kv.view(B, L, -1), grad_k_rope, None, None


def _assembled(
    query_BLQ: Tensor, kv_BLJ: Tensor, k_rope_BLR: Tensor, cis_LR: Tensor, config: ModelConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    B, L, _ = query_BLQ.shape
    H, N = config.num_heads, config.qk_nope_head_dim
    query_BLHK = query_BLQ.view(B, L, H, -1)
    kv_BLHJ = kv_BLJ.view(B, L, H, -1)
    q_BHLK = query_BLQ.new_empty(B, H, L, config.qk_head_dim)
    k_BHLK = torch.empty_like(q_BHLK)
    v_BHLV = query_BLQ.new_empty(B, H, L, config.v_head_dim)
    q_BHLK[..., :N].copy_(query_BLHK[..., :N].transpose(1, 2))
    q_BHLK[..., N:].copy_(rotate(query_BLHK[..., N:], cis_LR.unsqueeze(1)).transpose(1, 2))
    rotated_BLR = rotate(k_rope_BLR, cis_LR)
    k_BHLK[..., :N].copy_(kv_BLHJ[..., :N].transpose(1, 2))
    k_BHLK[..., N:].copy_(rotated_BLR.unsqueeze(1).expand(-1, H, -1, -1))
    v_BHLV.copy_(kv_BLHJ[..., N:].transpose(1, 2))
    return q_BHLK, k_BHLK, v_BHLV, rotated_BLR
