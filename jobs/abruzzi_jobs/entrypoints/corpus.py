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
from abruzzi_jobs.data.corpus import Progress, build_corpus
from abruzzi_jobs.data.curation.run import Curated, curate, fates
from abruzzi_jobs.data.processing.executor import Executor
from abruzzi_jobs.data.processing.local import LocalProcesses
from abruzzi_jobs.data.processing.ray_tasks import RayTasks
from abruzzi_jobs.data.ray_session import ENV_ADDRESS, ray_session
from abruzzi_jobs.data.sources import Source, resolve
from abruzzi_jobs.entrypoints.progress import StageProgress
from abruzzi_jobs.entrypoints.scratch import files_of, fresh_folder

logger = logging.getLogger(__name__)


def run(context: StageContext, reporter: Reporter) -> None:
    """Raises AbruzziError bad_data for sources that are unknown, unreadable or empty."""
    if context.rank != 0:
        return
    stage = CorpusStage.model_validate(context.spec.config)
    data = stage.data
    sources = [resolve(s, text_field=data.text_field, store=context.spec.store) for s in data.sources]
    out: Path = fresh_folder(context.scratch / "corpus")
    progress = StageProgress(context, reporter, "corpus")
    curated = _curated(context, stage, sources, _half(progress, 0)) if data.curated() else None
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


def _curated(context: StageContext, stage: CorpusStage, sources: list[Source], progress: Progress) -> Curated:
    work = context.scratch / "curation"  # what a rank before this one has finished stays: its digests are checked
    with _executor(stage) as executor:
        found = curate(sources, stage.data, work=work, executor=executor, progress=progress, store=context.spec.store)
        if isinstance(executor, RayTasks):
            logger.info("%s", executor.describe())
        return found


@contextmanager
def _executor(stage: CorpusStage) -> Iterator[Executor]:
    """Ray where the recipe asks for it and there is a cluster of it. A laptop has none, and makes the same."""
    if stage.resources.framework != "ray" or ENV_ADDRESS not in os.environ:
        yield LocalProcesses(stage.resources.threads or len(os.sched_getaffinity(0)))
        return
    with ray_session() as ray:
        yield RayTasks(ray)


def _half(progress: Progress, number: int) -> Progress:
    return lambda done, total, message: progress(number * total + done, 2 * total, message)
