"""Stage `instruct`: prompts in, conversations out, each with what was said of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.recipe import InstructStage
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.chat.stage import stage_roles
from abruzzi_jobs.entrypoints.progress import StageProgress, now_and_then
from abruzzi_jobs.entrypoints.scratch import files_of, fresh_folder
from abruzzi_jobs.instruct.run import fate_metrics, make_conversations


def run(context: StageContext, reporter: Reporter) -> None:
    """Raises AbruzziError bad_data, too_many_rejected, and what an endpoint raises. Answers so far are kept for the next attempt."""
    if context.rank != 0:
        return
    asyncio.run(_run(context, reporter))


async def _run(context: StageContext, reporter: Reporter) -> None:
    stage = InstructStage.model_validate(context.spec.config)
    out: Path = fresh_folder(context.scratch / "conversations")
    progress = StageProgress(
        context, reporter, "instruct", kept="answers so far are kept, and the next attempt goes on from them"
    )
    async with stage_roles(context, stage.asked_roles(), stage.endpoint, seed=stage.seed) as roles:
        described = await make_conversations(
            out,
            stage.instruct,
            roles=roles,
            seed=stage.seed,
            store=context.spec.store,
            progress=progress,
            tell=now_and_then(reporter),
        )
        await roles.write_calls(out)
        reporter.log({**roles.metrics(), **fate_metrics(described["fates"])}, step=described["prompts"]["asked"])
        progress.commit(ArtifactKind.CONVERSATIONS, "conversations", files_of(out), meta=_meta(described))
        await roles.discard_calls()


def _meta(described: dict[str, Any]) -> dict[str, Any]:
    keys = ("rows", "fates", "teacher", "prompts", "candidates", "down", "by_candidate", "verified")
    return {key: described[key] for key in keys}
