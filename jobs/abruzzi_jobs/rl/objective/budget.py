"""A token budget's penalty, in the place of the reward or below it (paper 3.2.3: truncated and penalised)."""

from __future__ import annotations

from abruzzi.contracts.objective import TokenBudget
from abruzzi.contracts.rollout import Outcome, Status

PENALTY = "budget_penalty"


def penalised(outcome: Outcome, budget: TokenBudget) -> Outcome:
    """The outcome of a trajectory that used its budget up, scored as it stood. One that was not scored (a failure) stays what it is: it never
    becomes a number."""
    if outcome.reward is None:
        return outcome
    reward = budget.penalty if budget.rule == "absolute" else min(outcome.reward, budget.penalty)
    return outcome.model_copy(
        update={
            "status": Status.BUDGET,
            "reward": reward,
            "components": {**outcome.components, PENALTY: reward - outcome.reward},
        }
    )
