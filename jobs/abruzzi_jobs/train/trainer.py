"""One training step after the other: forward, backward, reduce, clip, MuonClip, QK-Clip, router balance.

The same arithmetic on one rank or many: losses are divided by the global batch's targets before backward, gradients are summed in float32,
maxima and expert counts go over all ranks, so that two ranks follow one rank's losses at the same global batch.

Shapes: B rows of this rank, L sequence length, Y layers, H heads, M expert layers, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from abruzzi_jobs.distributed import GradientAccumulator, Ranks
from abruzzi_jobs.models import IGNORE, Decoder
from abruzzi_jobs.optim import ClipStatistics, MuonClip
from abruzzi_jobs.train.divergence import DivergenceWatch
from abruzzi_jobs.train.feed import HeldOut, Rows


@dataclass(frozen=True, slots=True)
class StepResult:
    loss: float
    """Mean cross-entropy of the global batch, nats a token."""
    bits_per_byte: float
    aux_loss: float
    grad_norm: float
    """Before clipping."""
    max_logit_YH: Tensor
    """Over the global batch."""
    expert_counts_ME: Tensor
    """Of the global batch."""
    clip: ClipStatistics


def bits_per_byte(loss_sum: float, target_bytes: float) -> float:
    """Of nats summed over targets, and the UTF-8 bytes that the same targets stand for."""
    return loss_sum / math.log(2) / target_bytes if target_bytes > 0 else math.nan


class Trainer:
    def __init__(
        self,
        model: Decoder,
        optimizer: MuonClip,
        ranks: Ranks,
        *,
        micro_sequences: int | None,
        watch: DivergenceWatch,
    ) -> None:
        """`micro_sequences`: rows of one forward pass on a rank; None: all of its share."""
        self.model, self.optimizer, self.ranks, self.watch = model, optimizer, ranks, watch
        self._micro_sequences = micro_sequences
        self._gradients = GradientAccumulator(model.named_parameters(), ranks=ranks)

    def step(self, step: int, rows: Rows, *, sequences: int, lr_scale: float, measure: bool = False) -> StepResult:
        """One update from this rank's rows of `sequences` in all. Raises AbruzziError `divergence` before the weights are touched."""
        global_targets = rows.global_targets
        if global_targets is None:
            global_targets = sequences * (rows.tokens_BL.shape[1] - 1)
        totals = torch.zeros(3, dtype=torch.float64, device=self.ranks.device)
        totals[2] = rows.target_bytes
        maxima: list[Tensor] = []
        counts: list[Tensor] = []
        for tokens_BL, targets_BL, segments_BL in self._micro_batches(rows):
            out = self.model(tokens_BL, targets_BL, segments_BL)
            assert out.loss_sum is not None
            share = len(tokens_BL) / sequences
            (out.loss_sum / global_targets + out.aux_loss * share).backward()
            self._gradients.accumulate()
            totals[:2] += torch.stack([out.loss_sum.detach().double(), out.aux_loss.detach().double() * share])
            maxima.append(out.max_logit_per_layer.detach())
            counts.append(out.expert_counts)
        gradients = self._gradients.reduce()
        loss_sum, aux_loss, target_bytes = self.ranks.sum_(totals).tolist()
        loss = loss_sum / global_targets
        norm = float(self.optimizer.gradient_norm(gradients))
        self.watch.check(step, loss, norm)
        limit = self.optimizer.config.max_grad_norm
        scale = min(1.0, limit / (norm + 1e-6)) if limit is not None else 1.0
        self.optimizer.step(lr_scale, gradients=gradients, grad_scale=scale, measure=measure)
        max_logit_YH = self.ranks.max_(torch.stack(maxima).amax(0))
        counts_ME = self.ranks.sum_(torch.stack(counts).sum(0))
        clip = self.optimizer.clip_qk(max_logit_YH)
        self.model.update_router_bias(counts_ME)
        self._gradients.reset()
        return StepResult(loss, bits_per_byte(loss_sum, target_bytes), aux_loss, norm, max_logit_YH, counts_ME, clip)

    @torch.no_grad()
    def held_out_loss(self, held_out: HeldOut) -> tuple[float, float]:
        """(mean cross-entropy in nats a token, bits a byte) over the held-out rows of all ranks; all ranks call it."""
        totals = torch.zeros(2, dtype=torch.float64, device=self.ranks.device)
        totals[1] = held_out.rows.target_bytes
        for tokens_BL, targets_BL, segments_BL in self._micro_batches(held_out.rows):
            losses = self.model.token_losses(tokens_BL, targets_BL, segments_BL)
            totals[0] += losses.double().sum()
        loss_sum, target_bytes = self.ranks.sum_(totals).tolist()
        return loss_sum / held_out.targets, bits_per_byte(loss_sum, target_bytes)

    def _micro_batches(self, rows: Rows) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(inputs, targets, segments), each [B, L]."""
        count = len(rows.tokens_BL)
        size = self._micro_sequences or count
        for first in range(0, count, max(1, size)):
            here = slice(first, first + size)
            tokens_BL = rows.tokens_BL[here].to(self.ranks.device)
            segments_BL = rows.segments_BL[here].to(self.ranks.device)
            targets_BL = tokens_BL[:, 1:]
            if rows.learned_BL is not None:
                learned_BL = rows.learned_BL[here, 1:].to(self.ranks.device)
                targets_BL = targets_BL.masked_fill(~learned_BL, IGNORE)
            yield tokens_BL[:, :-1], targets_BL, segments_BL[:, :-1]
