"""One training step after the other: forward, backward, reduce, clip, MuonClip, QK-Clip, router balance.

The same arithmetic on one rank or many: losses are divided by the global batch's targets before backward, gradients are summed in float32,
maxima and expert counts go over all ranks, so that two ranks follow one rank's losses at the same global batch.

Shapes: B rows of this rank, L sequence length, Y layers, H heads, M expert layers, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from abruzzi.contracts.training import BatchConfig
from abruzzi_jobs.distributed import GradientAccumulator, Ranks
from abruzzi_jobs.models import KimiK2
from abruzzi_jobs.optim import ClipStatistics, MuonClip
from abruzzi_jobs.train.divergence import DivergenceWatch


@dataclass(frozen=True, slots=True)
class StepResult:
    loss: float
    """Mean cross-entropy of the global batch, nats a token."""
    aux_loss: float
    grad_norm: float
    """Before clipping."""
    max_logit_YH: Tensor
    expert_counts_ME: Tensor
    clip: ClipStatistics


class Trainer:
    def __init__(
        self, model: KimiK2, optimizer: MuonClip, ranks: Ranks, batch: BatchConfig, *, watch: DivergenceWatch
    ) -> None:
        self.model, self.optimizer, self.ranks, self.watch = model, optimizer, ranks, watch
        self._micro_sequences = batch.micro_sequences
        self._gradients = GradientAccumulator(model.named_parameters(), ranks=ranks)

    def step(
        self,
        step: int,
        tokens_BL: Tensor,
        segments_BL: Tensor,
        *,
        sequences: int,
        lr_scale: float,
        measure: bool = False,
    ) -> StepResult:
        """One update. Raises AbruzziError `divergence` before the weights are touched."""
        device = self.ranks.device
        rows = len(tokens_BL)
        micro = min(self._micro_sequences or rows, rows)
        global_targets = sequences * (tokens_BL.shape[1] - 1)
        totals = torch.zeros(2, dtype=torch.float64, device=device)
        max_logit_YH: Tensor | None = None
        counts_ME: Tensor | None = None
        for first in range(0, rows, micro):
            tokens = tokens_BL[first : first + micro].to(device)
            segments = segments_BL[first : first + micro].to(device)
            out = self.model(tokens[:, :-1], tokens[:, 1:], segments[:, :-1])
            share = len(tokens) / sequences
            (out.loss_sum / global_targets + out.aux_loss * share).backward()
            self._gradients.accumulate()
            totals += torch.stack([out.loss_sum.detach().double(), out.aux_loss.detach().double() * share])
            max_logit_YH = (
                out.max_logit_per_layer
                if max_logit_YH is None
                else torch.maximum(max_logit_YH, out.max_logit_per_layer)
            )
            counts_ME = out.expert_counts if counts_ME is None else counts_ME + out.expert_counts
        assert max_logit_YH is not None
        assert counts_ME is not None
        gradients = self._gradients.reduce()
        loss_sum, aux_loss = self.ranks.sum_(totals).tolist()
        loss = loss_sum / global_targets
        norm = float(self.optimizer.gradient_norm(gradients))
        self.watch.check(step, loss, norm)
        limit = self.optimizer.config.max_grad_norm
        scale = min(1.0, limit / (norm + 1e-6)) if limit is not None else 1.0
        self.optimizer.step(lr_scale, gradients=gradients, grad_scale=scale, measure=measure)
        clip = self.optimizer.clip_qk(self.ranks.max_(max_logit_YH))
        self.model.update_router_bias(self.ranks.sum_(counts_ME))
        self._gradients.reset()
        return StepResult(loss, aux_loss, norm, max_logit_YH, counts_ME, clip)

    @torch.no_grad()
    def held_out_loss(self, tokens_BL: Tensor, segments_BL: Tensor) -> float:
        """Mean cross-entropy of fixed held-out rows, nats a token."""
        self.model.eval()
        out = self.model(
            tokens_BL[:, :-1].to(self.ranks.device),
            tokens_BL[:, 1:].to(self.ranks.device),
            segments_BL[:, :-1].to(self.ranks.device),
        )
        self.model.train()
        return float(out.loss_sum / out.num_targets)
