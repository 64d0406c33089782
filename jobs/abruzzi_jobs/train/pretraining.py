"""Pre-training: fresh weights or given ones, and the tokens of a dataset."""

from __future__ import annotations

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import PretrainStage
from abruzzi_jobs.checkpoint import load_weights
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.train.feed import Feed
from abruzzi_jobs.train.schedule import Schedule, build_schedule
from abruzzi_jobs.train.training import Training, build_model

GIVEN = "checkpoint"
"""The optional input: weights to begin with. Optimizer, step count and order of data are this stage's own."""


class Pretraining(Training):
    def __init__(self, context: StageContext, reporter: Reporter, stage: PretrainStage, ranks: Ranks) -> None:
        model = build_model(stage, ranks, stage.model.model_dump(), seed=context.spec.seed)
        origin = f"starting from fresh weights, seed {context.spec.seed}"
        if GIVEN in context.spec.inputs:
            given = context.input(GIVEN)
            name = f"{given.manifest.name} of stage {given.manifest.stage_id!r}"
            load_weights(given.folder, model, name=name)
            origin = f"starting from the weights of {given.manifest.stage_id} ({given.manifest.name})"
        schedule = build_schedule(stage.schedule, stage.batch, world_size=ranks.world_size)
        feed = _open_feed(context, stage, schedule, ranks)
        super().__init__(
            context, reporter, stage, ranks, model=model, schedule=schedule, feed=feed, table=context.spec.config, origin=origin
        )  # fmt: skip


def _open_feed(context: StageContext, stage: PretrainStage, schedule: Schedule, ranks: Ranks) -> Feed:
    folder = context.input("dataset").folder
    feed = Feed(folder, schedule, seed=context.spec.seed, rank=ranks.rank, world_size=ranks.world_size)
    if feed.vocab_size > stage.model.vocab_size:
        raise AbruzziError(
            "bad_data",
            f"The dataset has {feed.vocab_size} tokens in its vocabulary, the model {stage.model.vocab_size}.",
            hint="Set model.vocab_size to the tokenizer's.",
        )
    return feed
