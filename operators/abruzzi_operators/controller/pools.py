"""The pool controller: rows of pools become objects of Kueue, and what Kueue says of its queues is written back.

Level-triggered: every look applies what should be there (server-side apply of the same changes nothing) and removes what belongs to no pool.
Names of cluster-wide objects are one for all platforms of a cluster: who comes second with the same name is told, and takes nothing over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from abruzzi.contracts.pool import UNSEEN, PoolSpec
from abruzzi.pools.queue import Place
from abruzzi_operators.controller.places import find_places
from abruzzi_operators.executors.ledger import Queued
from abruzzi_operators.kubernetes.api import Api
from abruzzi_operators.kubernetes.errors import ApiError, Denied, NotFound, NotServed
from abruzzi_operators.kubernetes.quantities import amount
from abruzzi_operators.kubernetes.resources import (
    CLUSTER_QUEUES,
    LOCAL_QUEUES,
    RESOURCE_FLAVORS,
    TOPOLOGIES,
    Object,
    Resource,
)
from abruzzi_operators.renderers.kueue import pool_objects
from abruzzi_operators.renderers.names import LABEL_STAGES_NAMESPACE, MANAGED_BY, MANAGER

logger = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
_OWNED = (LOCAL_QUEUES, CLUSTER_QUEUES, RESOURCE_FLAVORS, TOPOLOGIES)
"""In the order in which they can be deleted."""


class Pools(Protocol):
    async def list(self) -> Sequence[PoolSpec]: ...

    async def observe(self, name: str, status: Mapping[str, Any], places: Sequence[Place] | None) -> None:
        """`places` None: nobody knows who waits."""
        ...


class Queues(Protocol):
    """What the executor's watches know (executors/kubernetes.py)."""

    async def queue(self) -> Sequence[Queued]: ...

    def served_kinds(self) -> Sequence[str]: ...


class PoolController:
    def __init__(self, api: Api, pools: Pools, queues: Queues, *, namespace: str, now: Callable[[], datetime]) -> None:
        self._api, self._pools, self._queues, self._namespace, self._now = api, pools, queues, namespace, now
        self._applied: dict[str, list[tuple[Resource, Object]]] = {}

    async def run(self) -> None:
        """Until cancelled. A pool that cannot be applied does not keep the others."""
        while True:
            try:
                await self.look()
            except Exception:
                logger.exception("cannot look after the pools; again in %.0f s", LOOK_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        pools = [pool for pool in await self._pools.list() if pool.kind == "kubernetes"]
        others = await self._remove_others(pools)
        queued = await self._queued() if pools else None
        for pool in pools:
            status = await self._keep(pool, others)
            places = None
            if queued is not None:
                places = await find_places(self._api, pool, queued, namespace=self._namespace)
            await self._pools.observe(pool.name, status, places)

    async def _queued(self) -> Sequence[Queued] | None:
        """None: it cannot be known now, and what was known stays."""
        try:
            return await self._queues.queue()
        except ApiError as error:
            logger.warning("cannot tell who waits: %s", error.message)
            return None

    async def _keep(self, pool: PoolSpec, others: Mapping[tuple[Resource, str], str]) -> dict[str, Any]:
        """The pool's status after it was applied. `others`: what belongs to other platforms."""
        wanted = pool_objects(pool, namespace=self._namespace)
        if not wanted:
            return self._status(True, "No quota: nobody queues.")
        try:
            if self._applied.get(pool.name) != wanted:
                for resource, body in wanted:
                    name = body["metadata"]["name"]
                    if (owner := others.get((resource, name))) is not None:
                        return self._status(
                            False,
                            f"{resource.kind} {name} belongs to the platform whose stages run in namespace {owner}. "
                            "Give this pool, or its cohort, a name of its own, or delete that object if its platform is no more.",
                        )
                for resource, body in wanted:
                    await self._api.apply(resource, body)
                self._applied[pool.name] = wanted
        except NotServed:
            return self._status(False, "This cluster has no Kueue: quota is not held, and nobody queues.")
        except ApiError as error:
            return self._status(False, error.message)
        try:
            return self._read(await self._api.get(CLUSTER_QUEUES, f"abruzzi-{pool.name}"))
        except NotFound:
            self._applied.pop(pool.name)  # removed under us: applied again at the next look
            return self._status(False, "Its queue is gone; it is being made again.")

    def _read(self, queue: Object) -> dict[str, Any]:
        status = queue.get("status") or {}
        active = next((c for c in status.get("conditions", ()) if c["type"] == "Active"), None)
        ready = active is not None and active["status"] == "True"
        used, borrowed = _usage(status, "total"), _usage(status, "borrowed")
        return self._status(
            ready, "" if ready else (active or {}).get("message", "Kueue has not looked at it yet.")
        ) | {
            "used": used,
            "borrowed": {name: value for name, value in borrowed.items() if value},
            "pending": int(status.get("pendingWorkloads", 0)),
            "admitted": int(status.get("admittedWorkloads", 0)),
        }

    def _status(self, ready: bool, message: str) -> dict[str, Any]:
        kinds = sorted(self._queues.served_kinds())
        return {**UNSEEN, "ready": ready, "message": message, "kinds": kinds, "observed_at": self._now().isoformat()}

    async def _remove_others(self, pools: Sequence[PoolSpec]) -> dict[tuple[Resource, str], str]:
        """Objects of pools that are no more, and what no pool of a cohort shares any more. Kueue keeps a flavor until its last queue lets go of it.

        Returns what belongs to other platforms of this cluster: {(resource, name): the namespace of their stages}.
        """
        wanted = {
            (resource, body["metadata"]["name"])
            for pool in pools
            for resource, body in pool_objects(pool, namespace=self._namespace)
        }
        others: dict[tuple[Resource, str], str] = {}
        for resource in _OWNED:
            try:
                for item in await self._api.list(resource, label_selector=f"{MANAGED_BY}={MANAGER}"):
                    metadata = item["metadata"]
                    name, owner = metadata["name"], _owner(metadata)
                    if owner == self._namespace:
                        if (resource, name) not in wanted and "deletionTimestamp" not in metadata:
                            await self._delete(resource, metadata)
                    elif owner and not resource.namespaced:
                        others[resource, name] = owner
            except NotServed:
                continue
            except Denied as error:
                logger.warning("what is left of removed pools stays: %s", error.message)
        return others

    async def _delete(self, resource: Resource, metadata: Object) -> None:
        try:
            await self._api.delete(
                resource, metadata["name"], namespace=metadata.get("namespace"), uid=metadata.get("uid")
            )
        except NotFound:
            return
        except Denied as error:
            logger.warning("%s %s stays: %s", resource.kind, metadata["name"], error.message)


def _owner(metadata: Object) -> str | None:
    """The namespace of the stages of the platform that made it; None where a version before this label did, outside of any namespace."""
    return (metadata.get("labels") or {}).get(LABEL_STAGES_NAMESPACE) or metadata.get("namespace")


def _usage(status: Mapping[str, Any], key: str) -> dict[str, float]:
    """Summed over flavors, in CPUs, bytes and GPUs."""
    found: dict[str, float] = {}
    for flavor in status.get("flavorsUsage", ()):
        for resource in flavor.get("resources", ()):
            found[resource["name"]] = found.get(resource["name"], 0.0) + amount(resource.get(key, "0"))
    return found
