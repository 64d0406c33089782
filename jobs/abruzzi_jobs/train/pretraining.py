"""Pre-training: fresh weights or given ones, and the tokens of a dataset."""

from __future__ import annotations

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import PretrainStage
from abruzzi.plan.layout import layer_ranges
from abruzzi_jobs.checkpoint import load_weights
from abruzzi_jobs.distributed import Layout, Mesh, Ranks
from abruzzi_jobs.distributed.whole import WholeModel
from abruzzi_jobs.memory import MemoryPolicy
from abruzzi_jobs.models import Decoder, KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig
from abruzzi_jobs.train.feed import Feed
from abruzzi_jobs.train.parallel import build_parallel
from abruzzi_jobs.train.schedule import Schedule, build_schedule
from abruzzi_jobs.train.training import GIVEN, Training, build_model, refuse_other_ranks


class Pretraining(Training):
    def __init__(self, context: StageContext, reporter: Reporter, stage: PretrainStage, ranks: Ranks) -> None:
        parallel = stage.parallel
        data_ranks = ranks.world_size // parallel.pp
        schedule = build_schedule(stage.schedule, stage.batch, world_size=data_ranks)
        model: Decoder | WholeModel
        rank = ranks.rank
        if parallel.pp > 1 or parallel.ep > 1:
            model = _laid_out(stage, ranks, seed=context.spec.seed)
            rank = model.optimizer.mesh.data_rank
        else:
            model = build_model(stage, ranks, stage.model.model_dump(), seed=context.spec.seed)
        origin = f"starting from fresh weights, seed {context.spec.seed}"
        if GIVEN in context.spec.inputs:  # optimizer, step count and order of data are this stage's own
            given = context.input(GIVEN)
            name = f"{given.manifest.name} of stage {given.manifest.stage_id!r}"
            load_weights(given.folder, model, name=name)
            origin = f"starting from the weights of {given.manifest.stage_id} ({given.manifest.name})"
        feed = _open_feed(context, stage, schedule, rank=rank, data_ranks=data_ranks)
        super().__init__(
            context, reporter, stage, ranks, model=model, schedule=schedule, feed=feed, table=context.spec.config, origin=origin
        )  # fmt: skip


def _laid_out(stage: PretrainStage, ranks: Ranks, *, seed: int) -> WholeModel:
    """Over pipeline and expert-parallel ranks. Raises AbruzziError `invalid_config`."""
    refuse_other_ranks(stage, ranks)
    parallel = stage.parallel
    try:
        layout = Layout(pp=parallel.pp, vpp=parallel.vpp, ep=parallel.ep, dp=ranks.world_size // parallel.pp)
        policy = MemoryPolicy.from_dict(stage.memory.model_dump())
        return build_parallel(
            KimiK2, ModelConfig.from_dict(stage.model.model_dump()), OptimizerConfig.from_dict(stage.optimizer.model_dump()),
            Mesh(ranks, layout), layers=layer_ranges(stage.model, parallel), memory=policy, seed=seed,
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise AbruzziError("invalid_config", f"Stage {stage.id!r}: {error}.") from error


def _open_feed(context: StageContext, stage: PretrainStage, schedule: Schedule, *, rank: int, data_ranks: int) -> Feed:
    folder = context.input("dataset").folder
    feed = Feed(folder, schedule, seed=context.spec.seed, rank=rank, world_size=data_ranks)
    if feed.vocab_size > stage.model.vocab_size:
        raise AbruzziError(
            "bad_data",
            f"The dataset has {feed.vocab_size} tokens in its vocabulary, the model {stage.model.vocab_size}.",
            hint="Set model.vocab_size to the tokenizer's.",
        )
    return feed
