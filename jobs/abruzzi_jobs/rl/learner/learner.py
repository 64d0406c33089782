"""The learner: scored groups in, one MuonClip step for each minibatch, numbers out (paper 3.2.3).

`anchor` once an iteration, then `step` for each of its minibatches, in order. All is a function of weights, optimizer and groups: replayed, it
gives the same bits. Every rank holds all groups and takes its share of their trajectories, so that counts need no exchange.

Not in the loss: the router's sequence-wise balance loss, whose sequences are rows, so that it would depend on packing. The router's bias balances on.

Legend: T policy tokens that count in a packed row, S its sequences.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from abruzzi.contracts.objective import ObjectiveConfig
from abruzzi.contracts.rollout import Group
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.models import Decoder
from abruzzi_jobs.models.rows import PolicyOutput, policy_logprobs
from abruzzi_jobs.optim import MuonClip
from abruzzi_jobs.rl.learner.metrics import StepSums
from abruzzi_jobs.rl.learner.packing import (
    LearnedSequence,
    Minibatch,
    PackedRow,
    learned_sequence,
    pack_rows,
    policy_tokens_that_count,
    share_of_rank,
)
from abruzzi_jobs.rl.objective.advantages import has_variance, samples_of
from abruzzi_jobs.rl.objective.losses import LOSSES, Counts, PolicyTokens
from abruzzi_jobs.train.divergence import DivergenceWatch
from abruzzi_jobs.train.feed import Rows
from abruzzi_jobs.train.metrics import weight_metrics
from abruzzi_jobs.train.trainer import micro_batches
from abruzzi_jobs.train.update import UpdateResult, WeightUpdates

MICRO_TOKENS = 8192
"""Positions of one forward pass."""


@dataclass(frozen=True, slots=True)
class LearnerStep:
    metrics: dict[str, float]
    update: UpdateResult | None
    """None where nothing was to learn: the weights are as they were."""


class Learner:
    def __init__(
        self,
        model: Decoder,
        optimizer: MuonClip,
        ranks: Ranks,
        config: ObjectiveConfig,
        *,
        watch: DivergenceWatch,
        micro_tokens: int = MICRO_TOKENS,
    ) -> None:
        """`watch` is shown the policy's KL from π_old, nats a token: unlike this loss, it has one meaning throughout a run."""
        self.model, self.optimizer, self.ranks, self.config = model, optimizer, ranks, config
        self._updates = WeightUpdates(model, optimizer, ranks, watch=watch)
        self._micro_tokens = micro_tokens
        self._divisor_tokens: float | None = config.divisor_tokens
        self._anchor_holds = False
        """The weights are those of the last `anchor`."""

    def anchor(self, groups: Sequence[Group], *, version: int, minibatches: int = 1) -> tuple[Minibatch, ...]:
        """Groups of the iteration whose weights are policy `version`, in minibatches of whole groups, with log π_old by the weights as they are.

        The division is by the groups' ids: the order in which rollouts ended, short ones first, has no part in it.
        """
        if self.config.reset_optimizer:
            self.optimizer.reset()
        ordered = sorted(groups, key=lambda group: hashlib.sha256(group.id.encode()).digest())
        parts = [ordered[index::minibatches] for index in range(minibatches)]
        if self._divisor_tokens is None:
            self._divisor_tokens = _mean_tokens(groups, self.config, version)
        self._anchor_holds = True
        prepared = [self._prepare(part, version) for part in parts]
        return (*prepared[:1], *map(self._anchored, prepared[1:]))

    def step(
        self,
        number: int,
        minibatch: Minibatch,
        *,
        ptx: Rows | None = None,
        critic: Rows | None = None,
        critic_weight: float = 0.0,
        lr_scale: float = 1.0,
        measure: bool = False,
    ) -> LearnerStep:
        """One update. `number`: of the step, for messages. `ptx`: this rank's curated rows, with `global_targets`; used where `ptx_weight` is above 0.
        `critic`: lessons of a critic that is the policy itself, likewise; each loss has its own denominator.

        Raises AbruzziError `divergence` before the weights are touched.
        """
        sums = StepSums(self.ranks, self.config, minibatch)
        for row in minibatch.rows:
            self._learn_row(row, minibatch.counts, sums)
        has_ptx = self.config.ptx_weight > 0
        if has_ptx:
            if ptx is None:
                raise ValueError(f"ptx: no rows, but ptx_weight is {self.config.ptx_weight}")
            self._learn_rows("ptx", ptx, self.config.ptx_weight, sums)
        if critic is not None:
            self._learn_rows("critic", critic, critic_weight, sums)
        metrics = sums.metrics()
        if minibatch.learned_sequences == 0 and not has_ptx and critic is None:
            return LearnerStep(metrics, None)
        update = self._updates.apply(number, metrics["rl/policy_kl"], lr_scale=lr_scale, measure=measure)
        self._anchor_holds = False
        return LearnerStep({**metrics, **weight_metrics(update)}, update)

    def state_dict(self) -> dict[str, Any]:
        """JSON: what has to outlive the process."""
        return {"divisor_tokens": self._divisor_tokens}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._divisor_tokens = self.config.divisor_tokens or state["divisor_tokens"]

    def _prepare(self, groups: Sequence[Group], version: int) -> Minibatch:
        learned: list[LearnedSequence] = []
        sequences = tokens = zero_variance = 0
        for group in groups:
            samples = samples_of(group, self.config, iteration=version)
            found = [learned_sequence(sample, self.config, version=version) for sample in samples]
            sequences += len(samples)
            tokens += sum(sequence.learned_tokens for sequence in found if sequence is not None)
            same = bool(samples) and not has_variance(samples)
            zero_variance += same
            if not (same and self.config.zero_variance == "drop"):
                learned += [sequence for sequence in found if sequence is not None]
        mine = share_of_rank(learned, rank=self.ranks.rank, world_size=self.ranks.world_size)
        rows = pack_rows(mine, micro_tokens=self._micro_tokens, device=self.ranks.device)
        assert self._divisor_tokens is not None
        counts = Counts(max(1, sequences), max(1, tokens), self._divisor_tokens)
        return Minibatch(tuple(rows), counts, len(learned), zero_variance)

    @torch.no_grad()
    def _anchored(self, minibatch: Minibatch) -> Minibatch:
        rows = [replace(row, anchor_T=self._forward(row).logprob_C) for row in minibatch.rows]
        return replace(minibatch, rows=tuple(rows))

    def _learn_row(self, row: PackedRow, counts: Counts, sums: StepSums) -> None:
        out = self._forward(row)
        anchor_T = row.anchor_T
        if anchor_T is None:
            if not self._anchor_holds:
                raise ValueError(
                    "minibatch: π_old of an iteration's first minibatch is the policy before any step; step minibatches in order, each once"
                )
            anchor_T = out.logprob_C.detach()
        mismatch_T = anchor_T - row.behaviour_T
        keep_S = self._agreeing(mismatch_T, row)
        keep_T = keep_S.repeat_interleave(row.length_S)
        old_T = row.behaviour_T if self.config.partial == "anchor_behaviour" else anchor_T
        tokens = PolicyTokens(out.logprob_C[keep_T], old_T[keep_T], row.advantage_S[keep_S], row.length_S[keep_S])
        loss = LOSSES[self.config.loss](tokens, counts, self.config)
        sums.add(tokens, loss, entropy_T=out.entropy_C, mismatch_T=mismatch_T[row.age_T == 0], rejected=~keep_S)
        self._updates.backward(loss, max_logit_YH=out.max_logit_per_layer, expert_counts_ME=out.expert_counts)

    def _agreeing(self, mismatch_T: Tensor, row: PackedRow) -> Tensor:
        """bool [S]: engine and trainer differ by no more than `max_mismatch` nats a token on average."""
        limit = self.config.max_mismatch
        if limit is None:
            return torch.ones_like(row.length_S, dtype=torch.bool)
        sum_S = torch.segment_reduce(mismatch_T.abs().double(), "sum", lengths=row.length_S, unsafe=True)
        return sum_S / row.length_S <= limit

    def _learn_rows(self, name: str, rows: Rows, weight: float, sums: StepSums) -> None:
        """Cross-entropy of curated rows beside the policy's loss."""
        targets = rows.global_targets
        if targets is None:
            raise ValueError(f"{name}: rows without global_targets; the loss is divided by the targets of all ranks")
        for tokens_BL, targets_BL, segments_BL in micro_batches(rows, self._micro_sequences(rows), self.ranks.device):
            out = self.model(tokens_BL, targets_BL, segments_BL)
            assert out.loss_sum is not None
            loss = out.loss_sum / targets
            sums.add_rows(name, loss)
            self._updates.backward(
                weight * loss, max_logit_YH=out.max_logit_per_layer, expert_counts_ME=out.expert_counts
            )

    def _micro_sequences(self, rows: Rows) -> int:
        return max(1, self._micro_tokens // rows.tokens_BL.shape[1])

    def _forward(self, row: PackedRow) -> PolicyOutput:
        return policy_logprobs(self.model, row.tokens_L, row.targets_L, row.positions, row.temperature_T)


def _mean_tokens(groups: Sequence[Group], config: ObjectiveConfig, version: int) -> float:
    """Of the policy, that count, a sequence; 1 where there are none."""
    lengths = [policy_tokens_that_count(t, config, version=version) for group in groups for t in group.counted]
    return max(1.0, sum(lengths) / len(lengths)) if lengths else 1.0
