"""Stage `corpus`: sources in, an artifact of text shards out."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.recipe import CorpusStage
from abruzzi.contracts.states import ArtifactKind
from abruzzi.plan.placement import INDEXED_JOB
from abruzzi_jobs.data.corpus import Progress, build_corpus
from abruzzi_jobs.data.curation.run import Curated, curate, curate_share, fates
from abruzzi_jobs.data.processing.executor import Executor
from abruzzi_jobs.data.processing.indexed import IndexedShards
from abruzzi_jobs.data.processing.local import LocalProcesses
from abruzzi_jobs.data.processing.ray_tasks import RayTasks
from abruzzi_jobs.data.ray_session import ENV_ADDRESS, ray_session
from abruzzi_jobs.data.sources import Source, resolve
from abruzzi_jobs.entrypoints.progress import StageProgress
from abruzzi_jobs.entrypoints.scratch import files_of, fresh_folder

logger = logging.getLogger(__name__)


def run(context: StageContext, reporter: Reporter) -> None:
    """Raises AbruzziError bad_data for sources that are unknown, unreadable or empty."""
    stage = CorpusStage.model_validate(context.spec.config)
    data = stage.data
    indices = _indices(context, stage)
    if context.rank != 0 and indices is None:
        return
    sources = [resolve(s, text_field=data.text_field, store=context.spec.store) for s in data.sources]
    if context.rank != 0 and indices is not None:
        work, progress = context.scratch / "curation", StageProgress(context, reporter, "corpus")
        curate_share(sources, data, work=work, indices=indices, progress=progress, store=context.spec.store)
        return
    out: Path = fresh_folder(context.scratch / "corpus")
    progress = StageProgress(context, reporter, "corpus")
    curated = _curated(context, stage, sources, indices, _half(progress, 0)) if data.curated() else None
    if curated is None:
        corpus = build_corpus(sources, data, out=out, progress=progress)
    else:
        corpus = build_corpus(curated.sources, data, out=out, progress=_half(progress, 1), curation=curated.report)
    meta: dict[str, object] = {
        key: corpus[key]
        for key in ("train_bytes", "train_documents", "heldout_bytes", "heldout_documents", "cloze_items")
    }
    meta["licences"] = {s["name"]: s["licence"] for s in corpus["sources"]}
    meta["domains"] = corpus["domains"]
    if curated is not None:
        meta["fates"] = fates(corpus)
    reporter.log({f"corpus/{key}": float(corpus[key]) for key in ("train_bytes", "heldout_bytes")}, step=0)
    progress.commit(ArtifactKind.CORPUS, "corpus", files_of(out), meta=meta)
    if indices is not None:
        indices.remove()


def _curated(
    context: StageContext, stage: CorpusStage, sources: list[Source], indices: IndexedShards | None, progress: Progress
) -> Curated:
    work = context.scratch / "curation"  # what a rank before this one has finished stays: its digests are checked
    with _executor(stage, indices) as executor:
        found = curate(sources, stage.data, work=work, executor=executor, progress=progress, store=context.spec.store)
        if isinstance(executor, RayTasks):
            logger.info("%s", executor.describe())
        return found


def _indices(context: StageContext, stage: CorpusStage) -> IndexedShards | None:
    """Where the recipe asks for them and there is something to share. Below the stage's prefix, so that later attempts find it."""
    if stage.resources.framework != INDEXED_JOB or context.world_size == 1 or not stage.data.curated():
        return None
    prefix = f"{context.spec.output_prefix}shards/"
    return IndexedShards(
        context.store, prefix, index=context.rank, count=context.world_size, workers=stage.resources.threads or 1
    )


@contextmanager
def _executor(stage: CorpusStage, indices: IndexedShards | None) -> Iterator[Executor]:
    """Ray where the recipe asks for it and there is a cluster of it. A laptop has none, and makes the same."""
    if indices is not None:
        yield indices
        return
    if stage.resources.framework != "ray" or ENV_ADDRESS not in os.environ:
        yield LocalProcesses(stage.resources.threads or len(os.sched_getaffinity(0)))
        return
    with ray_session() as ray:
        yield RayTasks(ray)


def _half(progress: Progress, number: int) -> Progress:
    return lambda done, total, message: progress(number * total + done, 2 * total, message)
