"""What drives the logits' growth (paper appendix E): spectral norms and singular-value entropy of the query's and key's matrices."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from abruzzi_jobs.models.config import DecoderConfig, LlamaConfig, ModelConfig


@dataclass(frozen=True)
class Spectrum:
    spectral_norm: float
    singular_value_entropy: float
    """−Σ p log p / log n with p = σ²/Σσ²: 1 for equal singular values (Moonlight, arXiv 2502.16982)."""


@torch.no_grad()
def spectrum(weight: Tensor) -> Spectrum:
    """Of one matrix, in float32."""
    sigma = torch.linalg.svdvals(weight.float())
    share = sigma.square() / sigma.square().sum().clamp(min=torch.finfo(torch.float32).tiny)
    entropy = -torch.xlogy(share, share).sum() / math.log(max(len(sigma), 2))
    return Spectrum(spectral_norm=float(sigma[0]), singular_value_entropy=float(entropy))


def key_rows(kv_b_JC: Tensor, config: DecoderConfig) -> Tensor:
    """W_k: the nope-key rows of kv_b, head by head, without the values' [H·N, C]; the whole matrix where values have one of their own."""
    if isinstance(config, LlamaConfig):
        return kv_b_JC
    assert isinstance(config, ModelConfig)
    per_head = kv_b_JC.view(config.num_heads, -1, config.kv_lora_rank)
    return per_head[:, : config.qk_nope_head_dim].reshape(-1, config.kv_lora_rank)
