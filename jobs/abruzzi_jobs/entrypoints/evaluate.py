"""Stage `evaluate`: a checkpoint, its tokenizer and the corpus in, or suites for whoever plays the target; a report out."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.evaluation import SuiteSummary
from abruzzi.contracts.recipe import EvaluateStage
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.entrypoints.progress import StageProgress, now_and_then
from abruzzi_jobs.entrypoints.scratch import files_of, fresh_folder
from abruzzi_jobs.evals.runner.report import suites_markdown
from abruzzi_jobs.evals.runner.stage import facts_of, run_share, run_suites, share_of, target_of

KEPT = "answers so far are kept, and the next attempt goes on from them"


def run(context: StageContext, reporter: Reporter) -> None:
    """Raises AbruzziError bad_data where checkpoint, tokenizer and corpus do not fit together or a suite is malformed, and what the target raises."""
    stage = EvaluateStage.model_validate(context.spec.config)
    progress = StageProgress(context, reporter, "evaluate", kept=KEPT)
    if context.rank != 0:
        if share_of(context, stage).count > 1:
            asyncio.run(run_share(context, stage, progress=progress, log=now_and_then(reporter)))
        return
    out = fresh_folder(context.scratch / "report")
    report, told = _held_out(context, stage, progress)
    numbers = {key: value for key, value in report.pop("facts", {}).items()}

    def commit(summaries: list[SuiteSummary]) -> None:
        meta: dict[str, Any] = {**numbers, **facts_of(summaries)}
        reporter.log({f"evaluate/{key}": value for key, value in meta.items()}, step=_step(context, stage, report))
        text = told
        if summaries:
            target = target_of(context, stage)
            described = [summary.model_dump(mode="json") for summary in summaries]
            meta |= {"target": target, "suites": described}
            report.update(target=target, suites=described)
            text = "\n".join(part for part in (told, suites_markdown(summaries, target)) if part)
        _write(out, report, text)
        progress.commit(ArtifactKind.REPORT, "report", files_of(out), meta=meta)

    if stage.suites:
        log = now_and_then(reporter)
        asyncio.run(run_suites(context, stage, out, progress=progress, log=log, commit=commit))
    else:
        commit([])


def _held_out(context: StageContext, stage: EvaluateStage, progress: StageProgress) -> tuple[dict[str, Any], str]:
    """(report, in words). Where only suites are run nothing is loaded that needs torch."""
    if stage.evaluation is None:
        return {"version": 1}, ""
    from abruzzi_jobs.evals.checkpoint_model import threads
    from abruzzi_jobs.evals.evaluation import evaluate, facts
    from abruzzi_jobs.evals.report import markdown

    threads(stage.resources.threads)
    checkpoint, tokenizer, corpus = (context.input(name).folder for name in ("checkpoint", "tokenizer", "corpus"))
    report = evaluate(checkpoint, tokenizer, corpus, stage.evaluation, seed=stage.seed, progress=progress)
    return {**report, "facts": facts(report)}, markdown(report)


def _step(context: StageContext, stage: EvaluateStage, report: dict[str, Any]) -> int:
    """Of the checkpoint, so that its evaluation stands where it belongs on the curve of its training."""
    if report.get("step") is not None:
        return report["step"]
    return (target_of(context, stage).get("step") if stage.suites else None) or 0


def _write(out: Path, report: dict[str, Any], text: str) -> None:
    (out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "report.md").write_text(text + "\n", encoding="utf-8")
