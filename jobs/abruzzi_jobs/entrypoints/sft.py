"""Stage `sft`: fine-tunes a checkpoint on conversations; resumes bit for bit, as `pretrain` does."""

from __future__ import annotations

from abruzzi.client.stage import Preempted, Reporter, StageContext
from abruzzi.contracts.recipe import SftStage
from abruzzi_jobs.entrypoints.training import run_training
from abruzzi_jobs.sft.tuning import FineTuning


def run(context: StageContext, reporter: Reporter) -> None:
    stage = SftStage.model_validate(context.spec.config)

    def tell(done: int, total: int, message: str) -> None:
        """Before the first step, so always at step 0."""
        if context.stop_requested.is_set():
            raise Preempted(f"Told to stop while {message}.")
        reporter.heartbeat(0, "prepare", message=f"{message}: {done:,}")

    run_training(context, stage, lambda ranks: FineTuning(context, reporter, stage, ranks, tell).run())
