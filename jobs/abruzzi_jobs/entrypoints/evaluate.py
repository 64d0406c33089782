"""Stage `evaluate`: a checkpoint, its tokenizer and the corpus in, a report out."""

from __future__ import annotations

import json

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.recipe import EvaluateStage
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.entrypoints.progress import StageProgress
from abruzzi_jobs.entrypoints.scratch import files_of, fresh_folder
from abruzzi_jobs.evals.checkpoint_model import threads
from abruzzi_jobs.evals.evaluation import evaluate, facts
from abruzzi_jobs.evals.report import markdown


def run(context: StageContext, reporter: Reporter) -> None:
    """Raises AbruzziError bad_data where checkpoint, tokenizer and corpus do not fit together."""
    if context.rank != 0:
        return
    stage = EvaluateStage.model_validate(context.spec.config)
    threads(stage.resources.threads)
    checkpoint, tokenizer, corpus = (context.input(name).folder for name in ("checkpoint", "tokenizer", "corpus"))
    progress = StageProgress(context, reporter, "evaluate")
    report = evaluate(checkpoint, tokenizer, corpus, stage.evaluation, seed=stage.seed, progress=progress)
    numbers = facts(report)
    out = fresh_folder(context.scratch / "report")
    (out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "report.md").write_text(markdown(report) + "\n", encoding="utf-8")
    reporter.log({f"evaluate/{key}": value for key, value in numbers.items()}, step=report["step"] or 0)
    progress.commit(ArtifactKind.REPORT, "report", files_of(out), meta=numbers)
