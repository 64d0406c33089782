"""Rubrics: what critics weigh answers by. People write versions, and a stage that begins asks for the newest."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from abruzzi.contracts.rubric import RubricEdit, RubricSetList, RubricSetName, RubricSetOut
from abruzzi.identity.policy import Action
from abruzzi.rubrics import service as rubrics
from abruzzi.runs import query
from abruzzi_api.v1.attempts.routes import AttemptId
from abruzzi_api.work import ReadWork, ReportWork, Router, Work, permit

router = Router(tags=["rubrics"])
WriteWork = Annotated[Work, permit(Action.SUBMIT)]


@router.get("/rubrics", operation_id="rubrics_list")
async def list_rubrics(work: ReadWork) -> RubricSetList:
    """The newest version of each, by name."""
    return RubricSetList(items=tuple(await rubrics.newest(work.session, work.project_id)))


@router.get("/rubrics/{rubrics_name}", operation_id="rubrics_get")
async def get_rubrics(
    rubrics_name: RubricSetName, work: ReadWork, version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None
) -> RubricSetOut:
    """The newest, or the version that is named."""
    return await rubrics.get(work.session, work.project_id, rubrics_name, version)


@router.put("/rubrics/{rubrics_name}", operation_id="rubrics_write")
async def write_rubrics(rubrics_name: RubricSetName, body: RubricEdit, work: WriteWork) -> RubricSetOut:
    """The next version, for stages that begin from now on; what has begun keeps what it was told. The same rubrics again change nothing."""
    return await rubrics.write(
        work.session, work.project_id, rubrics_name, body, by=work.identity.actor, now=work.clock.now()
    )


@router.get("/attempts/{attempt_id}/rubrics/{rubrics_name}", operation_id="rubrics_of_attempt")
async def get_rubrics_of_attempt(attempt_id: AttemptId, rubrics_name: RubricSetName, work: ReportWork) -> RubricSetOut:
    """For a stage that begins: the newest of its project."""
    attempt = await query.attempt_row(work.session, attempt_id)
    return await rubrics.get(work.session, attempt.project_id, rubrics_name)
