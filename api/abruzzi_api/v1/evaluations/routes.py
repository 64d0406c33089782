"""Evaluations: what suites came to, and two of them compared item by item. Their answers are rows of the report's artifact."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Path, Query

from abruzzi.artifacts.facts import read_facts
from abruzzi.contracts.errors import Conflict
from abruzzi.contracts.evaluation import EvaluationOut, PairedOut
from abruzzi.contracts.leaderboard import LeaderboardOut, PaperTableName, PaperTableOut
from abruzzi.contracts.paper_tables import paper_table_out
from abruzzi.contracts.resources import Page
from abruzzi.evaluations import service as evaluations
from abruzzi.evaluations.leaderboard import leaderboard
from abruzzi.evaluations.paired import compare
from abruzzi.store import prefix_of
from abruzzi_api.pagination import Cursor, Limit, decode_moment, page
from abruzzi_api.v1.artifacts.routes import manifest_of
from abruzzi_api.work import ReadWork, Router

router = Router(prefix="/evaluations", tags=["evaluations"])
EvaluationId = Annotated[str, Path(max_length=32)]


@router.get("", operation_id="evaluations_list")
async def list_evaluations(
    work: ReadWork,
    suite: Annotated[str | None, Query(max_length=60, description="`name`, or `name@version`")] = None,
    target: Annotated[str | None, Query(max_length=300, description="A checkpoint's digest, or `kind:model`")] = None,
    run: Annotated[str | None, Query(max_length=32, description="That evaluated")] = None,
    of_run: Annotated[str | None, Query(max_length=32, description="Whose checkpoint was evaluated")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[EvaluationOut]:
    """Newest first."""
    found = await evaluations.list_evaluations(
        work.session,
        suite=suite,
        target=target,
        run_id=run,
        of_run=of_run,
        after=decode_moment(cursor),
        limit=limit + 1,
    )
    return Page[EvaluationOut].model_validate(page(found, limit, lambda e: (e.created_at.isoformat(), e.id)))


@router.get("/leaderboard", operation_id="evaluations_leaderboard")
async def get_leaderboard(
    work: ReadWork,
    run: Annotated[str | None, Query(max_length=32, description="That evaluated, or that made the checkpoint")] = None,
    recipe: Annotated[str | None, Query(max_length=40, description="Name of the recipe that evaluated")] = None,
    q: Annotated[
        str | None, Query(max_length=100, description="Part of the run's name, of the checkpoint's or of the model's")
    ] = None,
) -> LeaderboardOut:
    """Checkpoints and endpoints × suites: of each the newest evaluation, with tools and without."""
    return await leaderboard(work.session, run_id=run, recipe=recipe, q=q)


@router.get("/paper/{table}", operation_id="evaluations_paper")
async def get_paper_table(table: PaperTableName, work: ReadWork) -> PaperTableOut:
    """The paper's published scores, to stand beside ours; what it does not have is not there."""
    return paper_table_out(table)


@router.get("/{evaluation_id}", operation_id="evaluations_get")
async def get_evaluation(evaluation_id: EvaluationId, work: ReadWork) -> EvaluationOut:
    """A suite's outcome: settings, score with interval, what has no score and why, tokens."""
    return await evaluations.get(work.session, evaluation_id)


@router.get("/{evaluation_id}/against/{other_id}", operation_id="evaluations_compare")
async def compare_evaluations(
    evaluation_id: EvaluationId, other_id: Annotated[str, Path(max_length=32)], work: ReadWork
) -> PairedOut:
    """The first compared with the other (first minus other), on the items that both have a score of. 409 for two different suites."""
    first, other = [await evaluations.get(work.session, found) for found in (evaluation_id, other_id)]
    if first.suite != other.suite:
        raise Conflict(
            f"{first.suite} and {other.suite} are different suites.",
            code="different_suites",
            hint="Compare evaluations of one suite and version.",
        )
    return compare(await _scores(work, other), await _scores(work, first))


async def _scores(work: ReadWork, evaluation: EvaluationOut) -> dict[str, float | None]:
    artifact, manifest = await manifest_of(work, evaluation.artifact_id)
    facts = await asyncio.to_thread(read_facts, work.objects, manifest, prefix_of(artifact.manifest_key), "scores")
    found = facts.get(evaluation.suite)
    return {
        item: float(score) if isinstance(score, int | float) else None
        for item, score in (found.items() if isinstance(found, dict) else ())
    }
