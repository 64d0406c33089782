"""Who waits in a pool's queue in which order: by Kueue's own word where the cluster serves it, else by what its Workloads say."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from abruzzi.contracts.pool import PoolSpec
from abruzzi.contracts.stage import workload_name
from abruzzi.pools.queue import Place
from abruzzi_operators.executors.ledger import Queued
from abruzzi_operators.kubernetes.api import Api
from abruzzi_operators.kubernetes.errors import ApiError
from abruzzi_operators.renderers.kueue import queue_name

logger = logging.getLogger(__name__)
VISIBILITY = "/apis/visibility.kueue.x-k8s.io/v1beta2/clusterqueues/abruzzi-{pool}/pendingworkloads"
_OURS = workload_name("")


async def find_places(api: Api, pool: PoolSpec, queued: Sequence[Queued], *, namespace: str) -> list[Place]:
    """Of our attempts, in their order. An attempt that Kueue does not count yet (it was made a moment ago) comes after those that it counts."""
    name = queue_name(pool)
    if not name:
        return []
    waiting = {q.name: q for q in queued if q.queue == name and q.reserved_at is None and not q.is_over}
    if not waiting:
        return []
    counted = await _ask(api, pool)
    if counted is None:
        ordered = sorted(waiting.values(), key=lambda q: (-q.priority, q.since, q.name))
        return [_place(q, number, "priority") for number, q in enumerate(ordered, 1) if _is_ours(q)]
    positions = {
        item["metadata"]["name"]: int(item.get("positionInClusterQueue", 0)) + 1
        for item in counted
        if item["metadata"].get("namespace") == namespace
    }
    behind = max((int(item.get("positionInClusterQueue", 0)) + 1 for item in counted), default=0)
    new = sorted((q for q in waiting.values() if q.name not in positions), key=lambda q: (-q.priority, q.since, q.name))
    positions |= {q.name: behind + number for number, q in enumerate(new, 1)}
    return [
        _place(q, positions[q.name], "kueue")
        for q in sorted(waiting.values(), key=lambda q: positions[q.name])
        if _is_ours(q)
    ]


async def _ask(api: Api, pool: PoolSpec) -> list[dict[str, Any]] | None:
    """None: this cluster does not serve it, or may not be asked."""
    try:
        return list((await api.get_path(VISIBILITY.format(pool=pool.name), {"limit": "10000"})).get("items") or ())
    except ApiError as error:
        logger.debug("pool %s: no positions from Kueue (%s)", pool.name, error.message)
        return None


def _is_ours(queued: Queued) -> bool:
    return queued.owner_name.startswith(_OURS)


def _place(queued: Queued, position: int, ordered_by: Any) -> Place:
    return Place(queued.owner_name.removeprefix(_OURS), position, datetime.fromisoformat(queued.since), ordered_by)
