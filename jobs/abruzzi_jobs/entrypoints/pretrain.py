"""Stage `pretrain`: trains the model on a tokenized dataset with MuonClip; resumes bit for bit from the checkpoint that the platform picks."""

from __future__ import annotations

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.recipe import PretrainStage
from abruzzi_jobs.entrypoints.training import run_training
from abruzzi_jobs.train.pretraining import Pretraining


def run(context: StageContext, reporter: Reporter) -> None:
    stage = PretrainStage.model_validate(context.spec.config)
    run_training(context, stage, lambda ranks: Pretraining(context, reporter, stage, ranks).run())
