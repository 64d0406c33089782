"""Stage `rephrase`: a corpus in, the corpus with its documents in other words out."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.recipe import RephraseStage
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.chat.stage import stage_roles
from abruzzi_jobs.entrypoints.progress import StageProgress, now_and_then
from abruzzi_jobs.entrypoints.scratch import files_of, fresh_folder
from abruzzi_jobs.rephrase.run import rephrase_corpus

_TOLD = ("prompt_version", "teacher", "rewrites", "documents", "budget")


def run(context: StageContext, reporter: Reporter) -> None:
    """Raises AbruzziError bad_data, too_many_rejected, and what an endpoint raises. Answers so far are kept for the next attempt."""
    if context.rank != 0:
        return
    asyncio.run(run_async(context, reporter))


async def run_async(context: StageContext, reporter: Reporter) -> None:
    stage = RephraseStage.model_validate(context.spec.config)
    out: Path = fresh_folder(context.scratch / "corpus")
    progress = StageProgress(
        context, reporter, "rephrase", kept="answers so far are kept, and the next attempt goes on from them"
    )
    async with stage_roles(context, stage.roles, stage.endpoint, seed=stage.seed) as roles:
        corpus = await rephrase_corpus(
            context.input("corpus").folder,
            out,
            stage.rephrase,
            roles=roles,
            seed=stage.seed,
            progress=progress,
            tell=now_and_then(reporter),
        )
        await roles.write_calls(out)
        rephrased = corpus["rephrase"]
        reporter.log(
            {
                **roles.metrics(),
                **{f"rephrase/rewrites/{fate}": float(n) for fate, n in rephrased["rewrites"].items()},
                **{f"rephrase/documents/{end}": float(n) for end, n in rephrased["documents"].items()},
                "corpus/train_bytes": float(corpus["train_bytes"]),
            },
            step=rephrased["documents"].get("rewritten", 0) + rephrased["documents"].get("rejected", 0),
        )
        progress.commit(ArtifactKind.CORPUS, "corpus", files_of(out), meta=_meta(corpus))
        await roles.discard_calls()


def _meta(corpus: dict[str, Any]) -> dict[str, Any]:
    counted = ("train_bytes", "train_documents", "heldout_bytes", "heldout_documents", "cloze_items")
    return {
        **{key: corpus[key] for key in counted if key in corpus},
        "licences": {s["name"]: s["licence"] for s in corpus["sources"]},
        "domains": corpus["domains"],
        "rephrase": {key: corpus["rephrase"][key] for key in _TOLD if key in corpus["rephrase"]},
    }
