"""QK-Clip (paper section 2.1): after a step, every head whose largest logit exceeded the threshold is scaled back.

With γ = τ/S: rows of the query's nope part times γ^α, of the key's nope part times γ^(1−α), of the query's rope part times γ; the
rope key is shared by all heads and stays, so do values. The head's logits become γ times what they were: S maps to τ exactly.
Under grouped-query attention all of a key is shared, by the heads of its group: the query takes the whole γ.

Shapes: Y layers, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from abruzzi_jobs.models.config import DecoderConfig, LlamaConfig, ModelConfig


@dataclass(frozen=True)
class ClipStatistics:
    """Of one step."""

    clipped_heads: int
    gamma_min: float
    """1.0 when nothing was clipped."""
    clipped_heads_per_layer: tuple[int, ...]


def query_key_matrices(config: DecoderConfig) -> tuple[str, str]:
    """Last parts of the names of the matrices that make a layer's queries, and its keys."""
    return (
        ("q_proj.weight", "k_proj.weight")
        if isinstance(config, LlamaConfig)
        else ("q_b_proj.weight", "kv_b_proj.weight")
    )


@torch.no_grad()
def clip_heads_(
    q_b: Sequence[Tensor], kv_b: Sequence[Tensor], gamma_H: Tensor, *, alpha: float, config: DecoderConfig
) -> None:
    """Scale one layer's rows in place, in every copy given (float32 master, compute copy)."""
    if isinstance(config, LlamaConfig):
        for weight in q_b:
            weight.mul_(gamma_H.repeat_interleave(config.head_dim).unsqueeze(1).to(weight.dtype))
        return
    assert isinstance(config, ModelConfig)
    H, N, R = config.num_heads, config.qk_nope_head_dim, config.qk_rope_head_dim
    ones = gamma_H.new_ones
    query = torch.cat((gamma_H.pow(alpha).unsqueeze(1).expand(H, N), gamma_H.unsqueeze(1).expand(H, R)), 1)
    key = torch.cat((gamma_H.pow(1 - alpha).unsqueeze(1).expand(H, N), ones(H, config.v_head_dim)), 1)
    for weight in q_b:
        weight.mul_(query.reshape(-1, 1).to(weight.dtype))
    for weight in kv_b:
        weight.mul_(key.reshape(-1, 1).to(weight.dtype))


def gammas(max_logit_YH: Tensor, *, threshold: float) -> Tensor:
    """min(1, τ/S); 1 where the maximum is not positive."""
    return torch.where(max_logit_YH > threshold, threshold / max_logit_YH.clamp(min=threshold), 1.0)


def clip_statistics(gamma_YH: Tensor) -> ClipStatistics:
    clipped_Y = (gamma_YH < 1).sum(1)
    return ClipStatistics(
        clipped_heads=int(clipped_Y.sum()),
        gamma_min=float(gamma_YH.min()) if gamma_YH.numel() else 1.0,
        clipped_heads_per_layer=tuple(int(value) for value in clipped_Y),
    )
