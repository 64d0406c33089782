"""Pools: where ranks run."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Query, Response

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.pool import PoolOut, PoolSpec
from abruzzi.contracts.queue import QueueOut
from abruzzi.contracts.resources import Resource, StageOut
from abruzzi.identity.policy import Action
from abruzzi.pools import queue
from abruzzi.pools import service as pools
from abruzzi.runs import query
from abruzzi_api.etags import expected_version
from abruzzi_api.work import ReadWork, Router, Work, permit

router = Router(tags=["pools"])
ManageWork = Annotated[Work, permit(Action.MANAGE_POOLS)]
IfMatch = Annotated[str | None, Header(description="ETag of the pool as it was seen; 412 when it changed meanwhile")]


class Pools(Resource):
    items: list[PoolOut]


class Stages(Resource):
    items: list[StageOut]


@router.get("/pools", operation_id="pools_list")
async def list_pools(work: ReadWork) -> Pools:
    """All pools of the platform, with the ranks of all projects."""
    return Pools(items=await pools.list_pools(work.session, default=work.default_pool))


@router.get("/pools/{name}", operation_id="pools_get")
async def get_pool(name: str, work: ReadWork, response: Response) -> PoolOut:
    found = await pools.get(work.session, name, default=work.default_pool)
    response.headers["ETag"] = f'"{found.version}"'
    return found


@router.get("/pools/{name}/queue", operation_id="pools_queue")
async def get_queue(
    name: str, work: ReadWork, limit: Annotated[int, Query(ge=1, le=1000, description="Of the queue's head")] = 100
) -> QueueOut:
    """Stages that wait, in the order in which they will be let in. Those of other projects have figures and no names."""
    return await queue.queue(work.session, name, now=work.clock.now(), limit=limit)


@router.put("/pools/{name}", operation_id="pools_apply")
async def apply_pool(
    name: str, body: PoolSpec, work: ManageWork, response: Response, if_match: IfMatch = None
) -> PoolOut:
    """Make it, or change it to what is sent. By administrators of the platform's own project, `default`."""
    if body.name != name:
        raise AbruzziError("bad_pool", f"The path says {name!r}, the body {body.name!r}.", status=422)
    await pools.apply(
        work.session,
        body,
        expected_version=expected_version(if_match),
        actor=work.identity.actor,
        now=work.clock.now(),
    )
    found = await pools.get(work.session, name, default=work.default_pool)
    response.headers["ETag"] = f'"{found.version}"'
    return found


@router.delete("/pools/{name}", operation_id="pools_delete", status_code=204)
async def delete_pool(name: str, work: ManageWork) -> None:
    """409 while runs use it."""
    await pools.delete(work.session, name)


@router.get("/stages", operation_id="stages_list", tags=["stages"])
async def list_stages(work: ReadWork, run: Annotated[str, Query(max_length=16)]) -> Stages:
    """Of a run, in the recipe's order, with attempts and ranks."""
    return Stages(items=await query.list_stages(work.session, run, now=work.clock.now()))
