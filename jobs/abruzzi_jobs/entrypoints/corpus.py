"""Stage `corpus`: sources in, an artifact of text shards out."""

from __future__ import annotations

from pathlib import Path

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.recipe import CorpusStage
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.data.corpus import build_corpus
from abruzzi_jobs.data.sources import resolve
from abruzzi_jobs.entrypoints.progress import StageProgress
from abruzzi_jobs.entrypoints.scratch import files_of, fresh_folder


def run(context: StageContext, reporter: Reporter) -> None:
    """Raises AbruzziError bad_data for sources that are unknown, unreadable or empty."""
    if context.rank != 0:
        return
    data = CorpusStage.model_validate(context.spec.config).data
    sources = [resolve(s, text_field=data.text_field, store=context.spec.store) for s in data.sources]
    out: Path = fresh_folder(context.scratch / "corpus")
    progress = StageProgress(context, reporter, "corpus")
    corpus = build_corpus(sources, data, out=out, progress=progress)
    meta: dict[str, object] = {
        key: corpus[key]
        for key in ("train_bytes", "train_documents", "heldout_bytes", "heldout_documents", "cloze_items")
    }
    meta["licences"] = {s["name"]: s["licence"] for s in corpus["sources"]}
    meta["domains"] = corpus["domains"]
    reporter.log({f"corpus/{key}": float(corpus[key]) for key in ("train_bytes", "heldout_bytes")}, step=0)
    progress.commit(ArtifactKind.CORPUS, "corpus", files_of(out), meta=meta)
