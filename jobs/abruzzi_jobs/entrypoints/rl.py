"""Stage `rl`: trains a checkpoint in environments; goes on after any death with no trajectory lost or trained on twice."""

from __future__ import annotations

import asyncio

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.recipe import RlStage
from abruzzi_jobs.distributed import lone_rank
from abruzzi_jobs.entrypoints.training import run_training
from abruzzi_jobs.rl.actors.stage import ReinforcementOnActors
from abruzzi_jobs.rl.controller.stage import Reinforcement


def run(context: StageContext, reporter: Reporter) -> None:
    stage = RlStage.model_validate(context.spec.config)
    if stage.resources.framework == "ray":
        if context.rank == 0:  # the others are places for actors
            asyncio.run(ReinforcementOnActors(context, reporter, stage, lone_rank()).run())
        return
    run_training(context, stage, lambda ranks: asyncio.run(Reinforcement(context, reporter, stage, ranks).run()))
