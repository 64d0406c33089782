"""Stage `corpus`: sources in, an artifact of text shards out."""

from __future__ import annotations

import os
from pathlib import Path

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.recipe import CorpusStage
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.data.corpus import Progress, build_corpus
from abruzzi_jobs.data.curation.run import Curated, curate, fates
from abruzzi_jobs.data.processing.local import LocalProcesses
from abruzzi_jobs.data.sources import Source, resolve
from abruzzi_jobs.entrypoints.progress import StageProgress
from abruzzi_jobs.entrypoints.scratch import files_of, fresh_folder


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
        meta["fates"] = fates(curated.report)
    reporter.log({f"corpus/{key}": float(corpus[key]) for key in ("train_bytes", "heldout_bytes")}, step=0)
    progress.commit(ArtifactKind.CORPUS, "corpus", files_of(out), meta=meta)


def _curated(context: StageContext, stage: CorpusStage, sources: list[Source], progress: Progress) -> Curated:
    work = fresh_folder(context.scratch / "curation")
    workers = stage.resources.threads or len(os.sched_getaffinity(0))
    return curate(
        sources, stage.data, work=work, executor=LocalProcesses(workers), progress=progress, store=context.spec.store
    )


def _half(progress: Progress, number: int) -> Progress:
    return lambda done, total, message: progress(number * total + done, 2 * total, message)
