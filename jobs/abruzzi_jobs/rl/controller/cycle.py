"""The order of an iteration (paper 3.3.1), pure: what comes after what.

    ROLLOUT → COLLECT → SCORE → SWITCH → STEP × n → REGISTER → SWITCH → UPDATE → VERIFY, and the next iteration

An attempt begins at the iteration of its checkpoint, at the first phase: what another attempt has played, collected or scored of it is found where that
one left it, and nothing of it is made twice. Training is computed again, from the same trajectories to the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    ROLLOUT = "rollout"
    COLLECT = "collect"
    SCORE = "score"
    TO_TRAINING = "switch_to_training"
    STEP = "step"
    REGISTER = "register"
    TO_INFERENCE = "switch_to_inference"
    UPDATE = "update"
    VERIFY = "verify"


ORDER = tuple(Phase)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    iteration: int
    """Iterations before this one; also the version of the policy that plays it."""
    number: int = 0
    """Of the phase, in its order."""
    step: int = 0
    """Optimizer steps done; in phase STEP only."""

    @property
    def phase(self) -> Phase:
        return ORDER[self.number]

    @property
    def name(self) -> str:
        """Sorts as the phases do."""
        return f"{self.number:02d}-{self.phase.value}" + (f"-{self.step:03d}" if self.phase is Phase.STEP else "")


def next_position(position: Position, *, minibatches: int) -> Position:
    if position.phase is Phase.STEP and position.step + 1 < minibatches:
        return Position(position.iteration, position.number, position.step + 1)
    if position.number + 1 == len(ORDER):
        return Position(position.iteration + 1)
    return Position(position.iteration, position.number + 1)
