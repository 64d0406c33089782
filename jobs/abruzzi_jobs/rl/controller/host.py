"""The stage around the loop: signals, progress, metrics, checkpoints. A checkpoint's step is an iteration."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import RlStage
from abruzzi_jobs.checkpoint import Checkpointer, TrainingState, load_checkpoint, open_checkpoint
from abruzzi_jobs.checkpoint.randomness import capture_all
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.models import Decoder
from abruzzi_jobs.optim import MuonClip
from abruzzi_jobs.rl.controller.cycle import Position
from abruzzi_jobs.rl.controller.policy import lr_scale
from abruzzi_jobs.rl.learner.learner import Learner
from abruzzi_jobs.train.divergence import DivergenceWatch
from abruzzi_jobs.train.progress import Pace, duration

logger = logging.getLogger(__name__)

_LINE = ("rl/reward", "rl/length/policy_tokens", "rl/entropy", "rl/mismatch_kl", "train/grad_norm")


class StageHost:
    def __init__(
        self,
        context: StageContext,
        reporter: Reporter,
        stage: RlStage,
        ranks: Ranks,
        *,
        model: Decoder,
        optimizer: MuonClip,
        learner: Learner,
        watch: DivergenceWatch,
        table: Mapping[str, Any],
    ) -> None:
        """`table`: what checkpoints say of the stage, with the model's."""
        self._context, self._reporter, self._stage, self._ranks = context, reporter, stage, ranks
        self._model, self._optimizer, self._learner, self._watch = model, optimizer, learner, watch
        self._table = table
        self._checkpointer = Checkpointer(context, stage.checkpoint)
        self._pace = Pace(stage.rl.iterations)
        self._tokens = self._line = 0
        self._saved: int | None = None

    def resume(self) -> tuple[int, int]:
        """(iterations done, line) by the checkpoint that the platform picked; zeros without one.

        What was played after a checkpoint that training went back to, because it diverged, must not be played again: another line begins, with other
        draws and a folder of its own.
        """
        self._reporter.heartbeat(0, "load", total_steps=self._stage.rl.iterations)
        artifact = open_checkpoint(self._context, self._ranks)
        iterations = 0
        if artifact is not None:
            state = load_checkpoint(artifact, self._model, self._optimizer, rank=self._ranks.rank)
            iterations, self._tokens = state.step, state.tokens
            self._watch.load_state_dict(dict(state.divergence))
            self._learner.load_state_dict(state.loader["learner"])
            self._line = int(state.loader["line"])
            manifest = artifact.manifest
            self._saved = iterations if manifest.run_id == self._context.spec.run_id else None
            self._context.discard(artifact)
            logger.info(
                "resumed from %s of attempt %s after %d iterations", manifest.name, manifest.attempt_id, iterations
            )
        self._checkpointer.begin(self._model, self._optimizer, resumed_step=self._saved)
        self._pace.mark(iterations, self._tokens)
        if self._context.spec.data_step is not None:
            self._line = max(self._line, self._context.spec.data_step)
            logger.info("an earlier attempt diverged: what it played is passed over (line %d)", self._line)
        return iterations, self._line

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
        self.report({**metrics, "rl/tokens": float(self._tokens)}, iterations)
        self._pace.mark(iterations, self._tokens)
        left = self._pace.seconds_left
        shares = "  ".join(f"{key.rpartition('/')[2]} {metrics[key]:.4g}" for key in _LINE if key in metrics)
        logger.info(
            "iteration %d/%d  %s  %.1f s  ETA %s",
            iterations, self._stage.rl.iterations, shares, metrics["time/iteration"], duration(left or 0),
        )  # fmt: skip

    def save(self, iterations: int, *, now: bool) -> None:
        if (now or self._checkpointer.is_due(iterations)) and self._saved != iterations:
            self._reporter.heartbeat(iterations, "save", total_steps=self._stage.rl.iterations)
            self._saved = iterations
            self._checkpointer.save(self._model, self._optimizer, self._state(iterations))
        if now:
            self._checkpointer.finish()
        self._checkpointer.raise_failure()
        for report in self._checkpointer.take_reports():
            self._reporter.log(report.metrics(), step=report.step)

    def close(self) -> None:
        """The loop has failed: a save in flight is of good weights and still worth having."""
        try:
            self._checkpointer.finish()
        except (AbruzziError, OSError) as error:
            logger.warning("The last save failed too: %s", error)

    def _state(self, iterations: int) -> TrainingState:
        return TrainingState(
            step=iterations,
            tokens=self._tokens,
            phase="rl",
            lr_scale=lr_scale(self._stage.rl, max(0, iterations - 1)),
            loader={"learner": self._learner.state_dict(), "line": self._line},
            divergence=self._watch.state_dict(),
            config=self._table,
            random=capture_all(self._ranks),
        )
