"""From losses to new weights, whatever the loss: backward, reduce, clip, MuonClip, QK-Clip, router balance.

Losses are divided by the global batch's counts before backward, gradients are summed in float32, maxima and expert counts go over all ranks,
so that two ranks follow one rank's updates at the same global batch.

Shapes: Y layers, H heads, M expert layers, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from abruzzi_jobs.distributed import GradientAccumulator, Ranks
from abruzzi_jobs.models import Decoder
from abruzzi_jobs.optim import ClipStatistics, MuonClip
from abruzzi_jobs.train.divergence import DivergenceWatch


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateResult:
    grad_norm: float
    """Before clipping."""
    max_logit_YH: Tensor
    """Over the global batch."""
    expert_counts_ME: Tensor
    """Of the global batch."""
    clip: ClipStatistics


class WeightUpdates:
    """`backward` for each part of the batch, then `apply` on all ranks."""

    def __init__(self, model: Decoder, optimizer: MuonClip, ranks: Ranks, *, watch: DivergenceWatch) -> None:
        self.model, self.optimizer, self.ranks, self.watch = model, optimizer, ranks, watch
        self._gradients = GradientAccumulator(model.named_parameters(), ranks=ranks)
        config = model.config
        self._none_YH = torch.full((config.num_layers, config.num_heads), -math.inf, device=ranks.device)
        self._none_ME = torch.zeros(
            len(model.moe_layers()), getattr(config, "num_experts", 0), dtype=torch.int64, device=ranks.device
        )
        self._clear()

    def backward(self, loss: Tensor, *, max_logit_YH: Tensor, expert_counts_ME: Tensor) -> None:
        """`loss`: this part's share of the global batch's."""
        loss.backward()
        self._gradients.accumulate()
        self._max_logit_YH = torch.maximum(self._max_logit_YH, max_logit_YH.detach())
        self._counts_ME = self._counts_ME + expert_counts_ME

    def own_gradients(self) -> Mapping[str, Tensor]:
        """Of this rank alone so far, by name, float32."""
        return self._gradients.own()

    def gradients(self) -> Mapping[str, Tensor]:
        """Of the global batch so far, by name, float32; a collective. Valid until `apply` or `discard`."""
        return self._gradients.reduce()

    def apply(self, step: int, loss: float, *, lr_scale: float, measure: bool = False) -> UpdateResult:
        """Raises AbruzziError `divergence` before the weights are touched; `loss` is what is watched for spikes."""
        gradients = self.gradients()
        norm = float(self.optimizer.gradient_norm(gradients))
        self.watch.check(step, loss, norm)
        limit = self.optimizer.config.max_grad_norm
        scale = min(1.0, limit / (norm + 1e-6)) if limit is not None else 1.0
        self.optimizer.step(lr_scale, gradients=gradients, grad_scale=scale, measure=measure)
        max_logit_YH = self.ranks.max_(self._max_logit_YH)
        counts_ME = self.ranks.sum_(self._counts_ME)
        clip = self.optimizer.clip_qk(max_logit_YH)
        self.model.update_router_bias(counts_ME)
        self.discard()
        return UpdateResult(grad_norm=norm, max_logit_YH=max_logit_YH, expert_counts_ME=counts_ME, clip=clip)

    def discard(self) -> None:
        """What was accumulated."""
        self._gradients.reset()
        self._clear()

    def _clear(self) -> None:
        self._max_logit_YH, self._counts_ME = self._none_YH, self._none_ME
