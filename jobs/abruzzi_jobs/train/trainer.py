"""Training steps on tokens: cross-entropy of the global batch, then one update (update.py).

Losses are divided by the global batch's targets before backward, so that two ranks follow one rank's losses at the same global batch.

Shapes: B rows of this rank, L sequence length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.distributed.stopwatch import Stopwatch
from abruzzi_jobs.models import IGNORE, Decoder
from abruzzi_jobs.optim import MuonClip
from abruzzi_jobs.train.divergence import DivergenceWatch
from abruzzi_jobs.train.feed import HeldOut, Rows
from abruzzi_jobs.train.replay import fingerprint, refuse_difference
from abruzzi_jobs.train.update import UpdateResult, WeightUpdates


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult(UpdateResult):
    loss: float
    """Mean cross-entropy of the global batch, nats a token."""
    bits_per_byte: float
    aux_loss: float
    rank_seconds: tuple[float, ...] = ()
    """Of each rank's own work in the step before, without its waits for others."""


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
        self.model, self.ranks = model, ranks
        self._micro_sequences = micro_sequences
        self._stopwatch = Stopwatch(ranks.device)
        self._updates = WeightUpdates(model, optimizer, ranks, watch=watch)

    def step(
        self, step: int, rows: Rows, *, sequences: int, lr_scale: float, measure: bool = False, replay: bool = False,
        before_update: Callable[[], None] = lambda: None,
    ) -> StepResult:  # fmt: skip
        """One update from this rank's rows of `sequences` in all. Raises AbruzziError `divergence` and, where it is to `replay` its gradients,
        `corruption`, both before the weights are touched, and what `before_update` raises, once the gradients are there."""
        global_targets = rows.global_targets
        if global_targets is None:
            global_targets = sequences * (rows.tokens_BL.shape[1] - 1)
        seconds = self._stopwatch.read()
        self._stopwatch.begin()
        self._stopwatch.start()
        totals = self._gradients(rows, sequences, global_targets)
        self._stopwatch.stop()
        if replay:
            first = fingerprint(self._updates.own_gradients())
            self._updates.discard()
            totals = self._gradients(rows, sequences, global_targets)
            refuse_difference(step, first, fingerprint(self._updates.own_gradients()))
        before_update()
        shared = torch.zeros(3 + self.ranks.world_size, dtype=torch.float64, device=self.ranks.device)
        shared[:3], shared[3 + self.ranks.rank] = totals, seconds
        loss_sum, aux_loss, target_bytes, *rank_seconds = self.ranks.sum_(shared).tolist()
        loss = loss_sum / global_targets
        update = self._updates.apply(step, loss, lr_scale=lr_scale, measure=measure)
        return StepResult(
            loss=loss, bits_per_byte=bits_per_byte(loss_sum, target_bytes), aux_loss=aux_loss,
            grad_norm=update.grad_norm, max_logit_YH=update.max_logit_YH,
            expert_counts_ME=update.expert_counts_ME, clip=update.clip, rank_seconds=tuple(rank_seconds),
        )  # fmt: skip

    def _gradients(self, rows: Rows, sequences: int, global_targets: int) -> Tensor:
        """Accumulated. Returns (sum of losses, auxiliary loss, bytes of the targets) of this rank."""
        totals = torch.zeros(3, dtype=torch.float64, device=self.ranks.device)
        totals[2] = rows.target_bytes
        for tokens_BL, targets_BL, segments_BL in self._micro_batches(rows):
            out = self.model(tokens_BL, targets_BL, segments_BL)
            assert out.loss_sum is not None
            share = len(tokens_BL) / sequences
            self._updates.backward(
                out.loss_sum / global_targets + out.aux_loss * share,
                max_logit_YH=out.max_logit_per_layer,
                expert_counts_ME=out.expert_counts,
            )
            totals[:2] += torch.stack([out.loss_sum.detach().double(), out.aux_loss.detach().double() * share])
        return totals

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
        return micro_batches(rows, self._micro_sequences or len(rows.tokens_BL), self.ranks.device)


def micro_batches(rows: Rows, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(inputs, targets, segments), each [B, L], of `size` rows at a time."""
    for first in range(0, len(rows.tokens_BL), max(1, size)):
        here = slice(first, first + size)
        tokens_BL = rows.tokens_BL[here].to(device)
        segments_BL = rows.segments_BL[here].to(device)
        targets_BL = tokens_BL[:, 1:]
        if rows.learned_BL is not None:
            learned_BL = rows.learned_BL[here, 1:].to(device)
            targets_BL = targets_BL.masked_fill(~learned_BL, IGNORE)
        yield tokens_BL[:, :-1], targets_BL, segments_BL[:, :-1]
