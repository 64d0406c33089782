"""The objective of reinforcement learning: the policy's loss, budgets, temperature, difficulty (paper 3.2.3, reference formulas in docs/maths.md).

What the paper does not publish (τ, the penalty, the schedule, the weight of PTX) is a value here, never a constant in code.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, model_validator

from abruzzi.contracts.quantity import Count
from abruzzi.contracts.training import Strict


class LengthRewardConfig(Strict):
    """Kimi K1.5's (arXiv 2501.12599, section 2.3.3), added to the reward inside a group: λ = 0.5 − (length − min) / (max − min); right answers
    get λ, wrong ones min(0, λ)."""

    weight: StrictFloat = Field(default=0.2, gt=0)
    warmup_iterations: StrictInt = Field(default=0, ge=0)
    """Before this iteration there is none; K1.5 begins without."""
    component: str = "correct"
    """Of outcomes: 0.5 and more is right. A group whose outcomes do not all have it gets no length reward."""


class ObjectiveConfig(Strict):
    loss: Literal["opmd", "grpo", "dapo", "token_log2"] = "opmd"
    """`opmd`, the paper's: a sequence's (A − τρ)², ρ its log-probability under the policy less that under the policy of the iteration's start.
    `grpo` and `dapo`: clipped ratios of tokens, mean within sequences or over all tokens. `token_log2`: a clipped ratio and τ·log² of it, a token."""
    tau: StrictFloat = Field(default=0.05, gt=0)
    """Of `opmd` and `token_log2`; not published."""
    scale: Literal["unit", "paper"] = "unit"
    """Of `opmd`. `unit`: (A − τρ)² / 2τ, whose gradient at ρ = 0 is the policy gradient. `paper`: (A − τρ)², a gradient 2τ times that."""
    divisor: Literal["constant", "own_length"] = "constant"
    """What a sequence's loss under `opmd` is divided by; its own length weighs short sequences more."""
    divisor_tokens: Count | None = Field(default=None, gt=0)
    """The constant; absent: the policy's mean tokens a sequence in the first iteration."""
    advantage: Literal["mean", "mean_std"] = "mean"
    """The reward less the group's mean, the paper's; `mean_std`, GRPO's, also over the group's standard deviation."""
    clip_low: StrictFloat = Field(default=0.2, gt=0, lt=1)
    clip_high: StrictFloat = Field(default=0.28, gt=0)
    """Of the losses with clipped ratios: [1 − clip_low, 1 + clip_high]."""
    partial: Literal["anchor_current", "mask_old", "anchor_behaviour"] = "anchor_current"
    """Of sequences that were begun by an earlier policy. `anchor_current`: all tokens count, against this iteration's policy. `mask_old`: earlier
    policies' tokens count neither in the loss nor in ρ. `anchor_behaviour`: against the policies that drew them, by the engine's log-probabilities."""
    zero_variance: Literal["drop", "keep"] = "drop"
    """Groups whose rewards are all the same: at ρ = 0 their gradient is zero. `keep` has them pull the policy back in later minibatches."""
    max_mismatch: StrictFloat | None = Field(default=None, gt=0)
    """Nats a token: sequences whose log-probabilities by engine and trainer differ by more on average are left out of the loss."""
    ptx_weight: StrictFloat = Field(default=0.0, ge=0)
    """Of the loss on curated conversations beside the policy's, each divided by its own tokens; 0: off."""
    reset_optimizer: StrictBool = False
    """Momenta begin anew with each iteration, as its reference policy does (K1.5)."""
    length_reward: LengthRewardConfig | None = None


class TokenBudget(Strict):
    """A maximum of the policy's tokens in a whole trajectory, tools' answers not counted (paper 3.2.3)."""

    tokens: Count = Field(gt=0)
    penalty: StrictFloat = -0.5
    """The reward of a trajectory that used it up; not published."""
    rule: Literal["absolute", "minimum"] = "absolute"
    """`absolute`: the penalty in the place of the reward. `minimum`: the smaller of the two."""


class TemperatureSchedule(Strict):
    """Of sampling, by iteration; constant within one."""

    start: StrictFloat = Field(default=1.0, gt=0)
    end: StrictFloat | None = Field(default=None, gt=0)
    """Absent: as at the start."""
    iterations: StrictInt = Field(default=0, ge=0)
    """Until `end` is reached."""
    shape: Literal["linear", "cosine", "exponential"] = "linear"

    @model_validator(mode="after")
    def _ends(self) -> TemperatureSchedule:
        if (self.end is None) != (self.iterations == 0):
            raise ValueError("end, iterations: a schedule has both, a constant temperature neither")
        return self


class DifficultyBand(Strict):
    """Tasks of moderate difficulty: pass@k of the policy before reinforcement learning lies within (paper 3.2.1)."""

    candidates: StrictInt = Field(default=256, ge=1)
    """Different tasks that are tried; those in the band are played, again and again."""
    attempts: StrictInt = Field(default=8, ge=1)
    """Trajectories of each, at the temperature of its family."""
    k: StrictInt = Field(default=4, ge=1)
    right: StrictFloat = 0.5
    """A reward of so much and more."""
    low: StrictFloat = Field(default=0.1, ge=0, le=1)
    high: StrictFloat = Field(default=0.95, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> DifficultyBand:
        if self.k > self.attempts:
            raise ValueError(f"k: pass@{self.k} cannot be told from {self.attempts} attempts")
        if self.low > self.high:
            raise ValueError(f"low: {self.low} is above high, {self.high}")
        return self
