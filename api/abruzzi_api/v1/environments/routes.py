"""Environments: what there is to train in, and what became of it."""

from __future__ import annotations

from abruzzi.contracts.environment import EnvironmentList
from abruzzi.environments import service as environments
from abruzzi_api.work import ReadWork, Router

router = Router(tags=["environments"])


@router.get("/environments", operation_id="environments_list")
async def list_environments(work: ReadWork) -> EnvironmentList:
    """The shipped ones, and those that the project's own stages name beside them, each with the newest stages that play it."""
    return await environments.listed(work.session, work.project_id)
