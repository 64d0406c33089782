"""Sigmoid routing with a correction bias (aux-loss-free balancing, arXiv 2408.15664) and the sequence-wise balance loss of DeepSeek-V3.

The bias only chooses experts; weights come from the scores alone. Everything is float32.

Shapes: B batch, L positions, D hidden, E experts, K experts a token, T = B·L tokens.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from abruzzi_jobs.models.config import ModelConfig
from abruzzi_jobs.models.linear import linear


class Routing(NamedTuple):
    experts_TK: Tensor
    """int64"""
    weights_TK: Tensor
    counts_E: Tensor
    """Tokens that chose each expert, int64."""
    aux_loss: Tensor
    """Scalar, already times alpha: mean over the batch's sequences."""


class Router(nn.Module):
    """x → the K experts of each token. Its weight stays float32 in a bfloat16 model."""

    e_score_correction_bias: Tensor

    def __init__(self, config: ModelConfig, *, device: Any = None) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(
            torch.empty(config.num_experts, config.hidden_size, device=device, dtype=torch.float32)
        )
        self.register_buffer(
            "e_score_correction_bias", torch.zeros(config.num_experts, device=device, dtype=torch.float32)
        )

    def forward(self, x_BLD: Tensor) -> Routing:
        config = self.config
        logits_BLE = linear(x_BLD, self.weight)
        scores_BLE = _Sigmoid.apply(logits_BLE) if torch.is_grad_enabled() else _sigmoid(logits_BLE)
        scores_TE = scores_BLE.flatten(0, 1)
        experts_TK = torch.topk(
            scores_TE.detach() + self.e_score_correction_bias, config.num_experts_per_token, sorted=False
        ).indices
        weights_TK = scores_TE.gather(1, experts_TK)
        if config.norm_topk_prob:
            weights_TK = weights_TK / (weights_TK.sum(-1, keepdim=True) + 1e-20)
        weights_TK = weights_TK * config.routed_scaling_factor
        counts_BE = _counts(experts_TK.view(*x_BLD.shape[:1], -1), config.num_experts)
        return Routing(experts_TK, weights_TK, counts_BE.sum(0), self._sequence_aux_loss(scores_BLE))

    @torch.no_grad()
    def update_bias(self, counts_E: Tensor, *, rate: float) -> None:
        """b += rate · sign(mean(c) − c), with the counts of the whole global batch."""
        counts = counts_E.to(self.e_score_correction_bias)
        self.e_score_correction_bias.add_(torch.sign(counts.mean() - counts), alpha=rate)

    def _sequence_aux_loss(self, scores_BLE: Tensor) -> Tensor:
        """alpha · Σ_i f_i P_i for each sequence: f the share of top-K places times E/K, P the mean normalised score.

        f counts the top K of the scores themselves, not the experts that the bias chose (DeepSeek-V3).
        """
        config = self.config
        if config.sequence_aux_loss == 0 or not torch.is_grad_enabled():
            return scores_BLE.new_zeros(())
        B, L, E = scores_BLE.shape
        top_BLK = torch.topk(scores_BLE.detach(), config.num_experts_per_token, sorted=False).indices
        share_BE = _counts(top_BLK.flatten(1), E).to(scores_BLE.dtype) * (E / (config.num_experts_per_token * L))
        probability_BE = (scores_BLE / scores_BLE.sum(-1, keepdim=True)).mean(1)
        return (share_BE * probability_BE).sum() * (config.sequence_aux_loss / B)


def _sigmoid(logits: Tensor) -> Tensor:
    """By the one exponential that gives the same bits wherever in a tensor it is computed (invariance.py); it stays finite."""
    return logits.clamp(min=-60).neg_().exp_().add_(1).reciprocal_()


class _Sigmoid(torch.autograd.Function):
    """Keeps its result alone."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        scores = _sigmoid(logits)
        ctx.save_for_backward(scores)
        return scores

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (scores,) = ctx.saved_tensors
        return grads[0] * scores * (1 - scores)


def _counts(experts_BX: Tensor, num_experts: int) -> Tensor:
    """int64 [B, E]"""
    B = experts_BX.shape[0]
    if B == 1 and not experts_BX.is_cuda:
        return torch.bincount(experts_BX.flatten(), minlength=num_experts).unsqueeze(0)
    if experts_BX.is_cuda:  # bincount there asks the device for the largest value, and waits
        counts_BE = experts_BX.new_zeros(B, num_experts)
        return counts_BE.scatter_add_(1, experts_BX, torch.ones_like(experts_BX))
    offset_B1 = torch.arange(B, device=experts_BX.device).unsqueeze(1) * num_experts
    return torch.bincount((experts_BX + offset_B1).flatten(), minlength=B * num_experts).view(B, num_experts)
