"""Stage `redteam`: attacks on a target, and how often it held."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.recipe import RedteamStage
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.chat.failures import BudgetReached, ChatFailure
from abruzzi_jobs.chat.provenance import teacher_of
from abruzzi_jobs.chat.stage import stage_roles
from abruzzi_jobs.entrypoints.progress import StageProgress, now_and_then
from abruzzi_jobs.entrypoints.scratch import files_of, fresh_folder
from abruzzi_jobs.safety.run import attack


def run(context: StageContext, reporter: Reporter) -> None:
    """Raises AbruzziError bad_data, leaves_deployment, mixed_teachers, and the code of what an endpoint raises. Answers so far are kept for the next attempt."""
    if context.rank != 0:
        return
    asyncio.run(_run(context, reporter))


async def _run(context: StageContext, reporter: Reporter) -> None:
    stage = RedteamStage.model_validate(context.spec.config)
    refuse_leaving(stage)
    teacher_of(stage.asked_roles(), stage.endpoint)
    out = fresh_folder(context.scratch / "redteam")
    progress = StageProgress(
        context, reporter, "redteam", kept="answers so far are kept, and the next attempt goes on from them"
    )
    async with stage_roles(context, stage.asked_roles(), stage.endpoint, seed=stage.seed) as roles:
        with untold():
            described = await attack(
                out, stage.redteam, roles=roles, seed=stage.seed, progress=progress, tell=now_and_then(reporter)
            )
        await roles.write_calls(out)
        facts = described["facts"]
        reporter.log(
            {**roles.metrics(), **{f"redteam/{name}": value for name, value in facts.items()}}, step=described["rows"]
        )
        meta = {**facts, "rows": described["rows"], "fates": described["fates"], "teacher": described["teacher"]}
        progress.commit(ArtifactKind.REDTEAM, "redteam", files_of(out), meta=meta)
        await roles.discard_calls()


@contextmanager
def untold() -> Iterator[None]:
    """Servers quote in their errors what they were asked, and everybody reads a stage's log: the error stays, without its words."""
    try:
        yield
    except BudgetReached:
        raise
    except ChatFailure as failure:
        raise AbruzziError(
            failure.code,
            f"Endpoint {failure.facts.get('endpoint', '')!r} failed ({failure.code}); what it said is not told here, for it may quote attacks.",
            status=failure.status,
            hint="`abruzzi endpoints check RECIPE` asks it one harmless question, and tells what it says.",
        ) from None


def refuse_leaving(stage: RedteamStage) -> None:
    """A recipe that was never validated is refused here, before a question is asked."""
    for role, endpoint, host in stage.leaving():
        raise AbruzziError(
            "leaves_deployment",
            f"The {role} is endpoint {endpoint!r} at {host}, and attackers' words go to the target and nowhere else outside.",
            hint="Serve the model beside the stage or in the cluster, or name its host in redteam.deployment_hosts.",
        )
