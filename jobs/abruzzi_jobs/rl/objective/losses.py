"""The policy's losses on packed tokens: pure functions of log-probabilities and advantages (paper 3.2.3).

Each is a share of the minibatch's loss, normalised by `Counts` of the whole minibatch over all ranks, so that the sum over packed rows,
micro-batches and ranks is the loss, however it is cut. All are to be minimised.

`opmd`, with ρ_i = Σ_t log π(y_t) − log π_old(y_t) of sequence i and A_i = r_i − r̄: (A_i − τρ_i)² / 2τ. Its gradient is −(A_i − τρ_i) ∇log π(y_i), which at
ρ = 0 is the policy gradient. (Kimi K1.5, arXiv 2501.12599; the paper's own form lacks 1 / 2τ.)

Shapes: T policy tokens of the packed sequences one after the other, S sequences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from abruzzi.contracts.objective import ObjectiveConfig


@dataclass(frozen=True, slots=True)
class PolicyTokens:
    """Sequences that count, each whole."""

    logprob_T: Tensor
    """log π_θ, with gradient, at the temperature of sampling."""
    anchor_T: Tensor
    """log π_old"""
    advantage_S: Tensor
    length_S: Tensor
    """int64: tokens of each sequence; they sum to T."""

    @property
    def advantage_T(self) -> Tensor:
        return self.advantage_S.repeat_interleave(self.length_S).to(self.logprob_T.dtype)

    @property
    def log_ratio_T(self) -> Tensor:
        return self.logprob_T - self.anchor_T

    def sums(self, values_T: Tensor) -> Tensor:
        """Of each sequence, float64 [S]: thousands of terms, of which each has float32's error already."""
        return torch.segment_reduce(values_T.double(), "sum", lengths=self.length_S, unsafe=True)


@dataclass(frozen=True, slots=True)
class Counts:
    """Of a minibatch over all ranks; trajectories with a reward, whether or not their group is left out of the update."""

    sequences: int
    tokens: int
    """Of the policy, that may count."""
    divisor_tokens: float
    """`divisor = "constant"`"""


PolicyLoss = Callable[[PolicyTokens, Counts, ObjectiveConfig], Tensor]


def opmd(tokens: PolicyTokens, counts: Counts, config: ObjectiveConfig) -> Tensor:
    """Mean over sequences of (A − τρ)² / 2τ over the divisor."""
    rho_S = tokens.sums(tokens.log_ratio_T)
    loss_S = (tokens.advantage_S - config.tau * rho_S).square()
    if config.scale == "unit":
        loss_S = loss_S / (2 * config.tau)
    divisor = counts.divisor_tokens if config.divisor == "constant" else tokens.length_S
    return (loss_S / divisor).sum() / counts.sequences


def grpo(tokens: PolicyTokens, counts: Counts, config: ObjectiveConfig) -> Tensor:
    """Mean over sequences of their tokens' mean (arXiv 2402.03300, without its KL term)."""
    return (tokens.sums(_clipped(tokens, config)) / tokens.length_S).sum() / counts.sequences


def dapo(tokens: PolicyTokens, counts: Counts, config: ObjectiveConfig) -> Tensor:
    """Mean over all tokens (arXiv 2503.14476)."""
    return _clipped(tokens, config).double().sum() / counts.tokens


def token_log2(tokens: PolicyTokens, counts: Counts, config: ObjectiveConfig) -> Tensor:
    """Mean over all tokens of −clip(ratio)·A + τ·log² ratio: outside the bounds the first has no gradient, whatever the advantage's sign (Kimi K2.5)."""
    log_ratio_T = tokens.log_ratio_T
    clipped_T = log_ratio_T.exp().clamp(1 - config.clip_low, 1 + config.clip_high)
    loss_T = config.tau * log_ratio_T.square() - clipped_T * tokens.advantage_T
    return loss_T.double().sum() / counts.tokens


LOSSES: dict[str, PolicyLoss] = {"opmd": opmd, "grpo": grpo, "dapo": dapo, "token_log2": token_log2}


@torch.no_grad()
def outside(tokens: PolicyTokens, config: ObjectiveConfig) -> Tensor:
    """bool [T]: the ratio is beyond its bounds, so that the clipped losses have no policy gradient there (`grpo`, `dapo`: on the advantage's side)."""
    ratio_T, low, high = tokens.log_ratio_T.exp(), 1 - config.clip_low, 1 + config.clip_high
    if config.loss == "token_log2":
        return (ratio_T < low) | (ratio_T > high)
    advantage_T = tokens.advantage_T
    return ((ratio_T < low) & (advantage_T < 0)) | ((ratio_T > high) & (advantage_T > 0))


def _clipped(tokens: PolicyTokens, config: ObjectiveConfig) -> Tensor:
    """−min(ratio·A, clip(ratio)·A) [T]"""
    ratio_T, advantage_T = tokens.log_ratio_T.exp(), tokens.advantage_T
    clipped_T = ratio_T.clamp(1 - config.clip_low, 1 + config.clip_high)
    return -torch.minimum(ratio_T * advantage_T, clipped_T * advantage_T)
