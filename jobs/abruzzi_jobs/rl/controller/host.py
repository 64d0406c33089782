"""The stage around the loop: signals, progress, metrics, when to save. A checkpoint's step is an iteration."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.recipe import RlStage
from abruzzi_jobs.rl.controller.cycle import Position
from abruzzi_jobs.rl.controller.trainer import Begun
from abruzzi_jobs.train.progress import Pace, duration

logger = logging.getLogger(__name__)

_LINE = ("rl/reward", "rl/length/policy_tokens", "rl/entropy", "rl/mismatch_kl", "train/grad_norm")


class Saver(Protocol):
    async def save(self, iterations: int, tokens: int, line: int, *, now: bool) -> Sequence[Mapping[str, float]]:
        """As Trainer.save."""
        ...


class StageHost:
    def __init__(
        self,
        context: StageContext,
        reporter: Reporter,
        stage: RlStage,
        saver: Saver,
        *,
        asked: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """`asked`: what the stage's roles have cost so far."""
        self._context, self._reporter, self._stage, self._saver, self._asked = context, reporter, stage, saver, asked
        self._pace = Pace(stage.rl.iterations)
        self._begun = Begun(0, 0, 0)
        self._tokens = 0

    def begin(self, begun: Begun) -> None:
        """Training goes on from there."""
        self._begun, self._tokens = begun, begun.tokens
        self._pace.mark(begun.iterations, begun.tokens)

    def is_stopping(self) -> bool:
        return self._context.stop_requested.is_set()

    def tell(self, position: Position, message: str, share: float) -> None:
        total, left = self._stage.rl.iterations, self._pace.seconds_left
        words = [message] if message else []
        if left is not None:
            words.append(f"{duration(left)} left")
        self._reporter.heartbeat(
            position.iteration,
            position.phase.value,
            total_steps=total,
            progress=(position.iteration + share) / total,
            message=", ".join(words),
        )

    def report(self, metrics: Mapping[str, float], iterations: int) -> None:
        self._reporter.log(dict(metrics), step=iterations)

    def end(self, metrics: Mapping[str, float], iterations: int) -> None:
        self._tokens += int(metrics.get("rl/learned_tokens", 0))
        self.report({**metrics, **self._asked(), "rl/tokens": float(self._tokens)}, iterations)
        self._pace.mark(iterations, self._tokens)
        left = self._pace.seconds_left
        shares = "  ".join(f"{key.rpartition('/')[2]} {metrics[key]:.4g}" for key in _LINE if key in metrics)
        logger.info(
            "iteration %d/%d  %s  %.1f s  ETA %s",
            iterations, self._stage.rl.iterations, shares, metrics["time/iteration"], duration(left or 0),
        )  # fmt: skip

    async def save(self, iterations: int, *, now: bool) -> None:
        if now:
            self._reporter.heartbeat(iterations, "save", total_steps=self._stage.rl.iterations)
        for metrics in await self._saver.save(iterations, self._tokens, self._begun.line, now=now):
            told = dict(metrics)
            self._reporter.log(told, step=int(told.pop("step")))
