"""Whether rubric rewards are given: only while the critic is right about held-out pairs of verifiable tasks. Pure."""

from __future__ import annotations

from abruzzi.contracts.critic import GateConfig
from abruzzi.contracts.rollout import Frozen


class GateState(Frozen):
    frozen: bool = True
    since: int = 0
    """Iteration, from 0, at which it became so."""
    window: tuple[tuple[int, float, int], ...] = ()
    """(pairs, points, turned) of the newest iterations that had any, the newest last."""

    @property
    def pairs(self) -> int:
        return sum(pairs for pairs, _, _ in self.window)

    @property
    def accuracy(self) -> float:
        return sum(points for _, points, _ in self.window) / max(1, self.pairs)

    @property
    def consistency(self) -> float:
        return 1 - sum(turned for _, _, turned in self.window) / max(1, self.pairs)


def after(
    state: GateState, config: GateConfig, *, iteration: int, pairs: int, points: float, turned: int
) -> tuple[GateState, str]:
    """(the state once this iteration's held-out pairs are known, what happened in words or '')."""
    window = state.window + (((pairs, points, turned),) if pairs else ())
    while len(window) > 1 and sum(p for p, _, _ in window[1:]) >= config.pairs:
        window = window[1:]
    seen = state.model_copy(update={"window": window})
    if not config.enabled:
        return seen.model_copy(update={"frozen": False}), ""
    if seen.pairs < config.pairs:
        return seen, ""
    margin = config.thaw_margin if state.frozen else 0.0
    low = [
        f"{name} {value:.3f} is below {bound + margin:.3f}"
        for name, value, bound in (
            ("accuracy", seen.accuracy, config.accuracy),
            ("consistency", seen.consistency, config.consistency),
        )
        if value < bound + margin
    ]
    if bool(low) == state.frozen:
        return seen, ""
    turned_to = seen.model_copy(update={"frozen": bool(low), "since": iteration})
    told = f"accuracy {seen.accuracy:.3f} and consistency {seen.consistency:.3f} over {seen.pairs} held-out pairs"
    return turned_to, f"rubric rewards are frozen: {'; '.join(low)}" if low else f"rubric rewards are given: {told}"
