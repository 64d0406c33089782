"""`[stage.rl.critic]`: rewards by comparison for tasks that nothing can verify, and what keeps the critic honest (paper 3.2.2)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, model_validator

from abruzzi.contracts.rubric import RubricSetName
from abruzzi.contracts.training import Strict

CriticForm = Literal["full", "short"]
"""How a pair is put: `full` with the rubrics in words, `short` with question and answers alone, for the smallest models."""


class RefinementConfig(Strict):
    """Closed loop: pairs of verifiable tasks, whose right order the verifier knows, are lessons of the critic in each optimizer step."""

    weight: StrictFloat = Field(default=1.0, ge=0)
    """Of the cross-entropy of the right verdict, beside the policy's loss; 0: no lessons."""
    pairs: StrictInt = Field(default=32, ge=1)
    """Of an iteration at most; each is asked in both orders."""


class GateConfig(Strict):
    """Rubric rewards are given only while the critic is right about held-out pairs of verifiable tasks. It begins frozen: trust is earned."""

    enabled: StrictBool = True
    """Without it rubric rewards are given whatever the critic is worth."""
    accuracy: StrictFloat = Field(default=0.6, ge=0.5, le=1)
    """At least; a verdict that turns with the order counts half."""
    consistency: StrictFloat = Field(default=0.6, ge=0, le=1)
    """At least: share of pairs whose verdict does not turn with the order."""
    pairs: StrictInt = Field(default=32, ge=1)
    """The newest so many, over iterations as far back as it takes; before there are as many, rewards are frozen."""
    thaw_margin: StrictFloat = Field(default=0.02, ge=0, lt=0.5)
    """Above both bounds, before rewards that were frozen are given again."""


class CriticConfig(Strict):
    """The policy itself is the critic, or whoever plays the stage's role `critic`."""

    rubrics: RubricSetName = "general"
    """The newest version on the platform when the stage begins; the stage keeps what it was told."""
    form: CriticForm = "full"
    """Of the policy's critic; the role `critic` is always asked in full, for a verdict a rubric."""
    opponents: StrictInt | None = Field(default=None, ge=1)
    """With how many of its group an answer is compared; absent: with all."""
    aggregate: Literal["win_rate", "bradley_terry"] = "win_rate"
    """From pairs to one number an answer; `bradley_terry` where `opponents` leaves most pairs out."""
    reward_range: tuple[StrictFloat, StrictFloat] = (0.0, 1.0)
    """What losing and winning every comparison is worth, beside rewards of verifiable tasks."""
    held_out_percent: StrictInt = Field(default=25, ge=0, le=90)
    """Of verifiable tasks, by their ids: never lessons, always measured on."""
    refinement: RefinementConfig = RefinementConfig()
    gate: GateConfig = GateConfig()

    @model_validator(mode="after")
    def _makes_sense(self) -> CriticConfig:
        low, high = self.reward_range
        if low >= high:
            raise ValueError(f"reward_range: {low} is not below {high}")
        if self.gate.enabled and not self.held_out_percent:
            raise ValueError(
                "held_out_percent: 0 leaves the gate nothing to measure on; set it, or gate.enabled = false"
            )
        return self
