"""Nodes: the machines that ranks run on."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from abruzzi.contracts.node import NodeListOut, NodeOut, NodeRequest, NodeState
from abruzzi.identity.policy import Action
from abruzzi.nodes import service as nodes
from abruzzi_api.work import ReadWork, Router, Work, permit

router = Router(prefix="/nodes", tags=["nodes"])
ManageWork = Annotated[Work, permit(Action.MANAGE_NODES)]


@router.get("", operation_id="nodes_list")
async def list_nodes(
    work: ReadWork,
    pool: Annotated[str | None, Query(max_length=64, description="Only those of a pool")] = None,
    state: Annotated[NodeState | None, Query(description="Only those in a state")] = None,
) -> NodeListOut:
    """All nodes of the platform, with what speaks against each."""
    return await nodes.list_nodes(work.session, pool=pool, state=state, now=work.clock.now())


@router.get("/{name}", operation_id="nodes_get")
async def get_node(name: str, work: ReadWork) -> NodeOut:
    return await nodes.get(work.session, name, now=work.clock.now())


@router.post("/{name}/drain", operation_id="nodes_drain")
async def drain_node(name: str, body: NodeRequest, work: ManageWork) -> NodeOut:
    """Take it out of use: nothing new is placed there, its stages save and go on elsewhere. By administrators of the platform."""
    now = work.clock.now()
    await nodes.drain(work.session, name, reason=body.reason, actor=work.identity.actor, now=now)
    return await nodes.get(work.session, name, now=now)


@router.post("/{name}/return", operation_id="nodes_return")
async def return_node(name: str, body: NodeRequest, work: ManageWork) -> NodeOut:
    """Take it into use again after a drain or a quarantine; its faults so far are forgotten. By administrators of the platform."""
    now = work.clock.now()
    await nodes.return_(work.session, name, reason=body.reason, actor=work.identity.actor, now=now)
    return await nodes.get(work.session, name, now=now)
