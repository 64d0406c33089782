"""Pools and stages: where ranks run."""

from __future__ import annotations

import os
from typing import Annotated

from fastapi import Query

from abruzzi.contracts.resources import Resource, StageOut
from abruzzi.runs import query
from abruzzi_api.work import ReadWork, Router

router = Router(tags=["pools"])


class PoolOut(Resource):
    name: str
    cores: int
    memory_bytes: int
    busy_ranks: int


class Pools(Resource):
    items: list[PoolOut]


class Stages(Resource):
    items: list[StageOut]


@router.get("/pools", operation_id="pools_list")
async def list_pools(work: ReadWork) -> Pools:
    """In this version one: the machine of the control plane."""
    ranks = await query.busy_ranks(work.session)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Pools(items=[PoolOut(name="local", cores=os.cpu_count() or 1, memory_bytes=memory, busy_ranks=ranks)])


@router.get("/stages", operation_id="stages_list", tags=["stages"])
async def list_stages(work: ReadWork, run: Annotated[str, Query(max_length=16)]) -> Stages:
    """Of a run, in the recipe's order, with attempts and ranks."""
    return Stages(items=await query.list_stages(work.session, run, now=work.clock.now()))
