"""A pool as Kueue knows it: ResourceFlavor, Topology, ClusterQueue and the LocalQueue of the stages' namespace. Pure.

Cluster-wide objects are called `abruzzi-<pool>`, the LocalQueue `<pool>`: what a workload's queue label says. Kueue lends within one
ResourceFlavor alone, so pools of a cohort that lie on the same nodes share theirs, and its Topology. Each says by a label which platform made it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from abruzzi.contracts.pool import Amounts, PoolSpec
from abruzzi_operators.kubernetes.resources import (
    CLUSTER_QUEUES,
    LOCAL_QUEUES,
    RESOURCE_FLAVORS,
    TOPOLOGIES,
    Object,
    Resource,
)
from abruzzi_operators.renderers.names import LABEL_STAGES_NAMESPACE, MANAGED_BY, MANAGER

LABEL_POOL = "abruzzi.io/pool"
LABEL_COHORT = "abruzzi.io/cohort"
"""Of what its pools share."""
GPU = "nvidia.com/gpu"


def queue_name(pool: PoolSpec) -> str:
    """LocalQueue; empty where nobody queues."""
    return pool.name if pool.quota is not None else ""


def flavor_name(pool: PoolSpec) -> str:
    """The same for pools of a cohort with the same labels, tolerations and topology of nodes."""
    if pool.cohort is None:
        return f"abruzzi-{pool.name}"
    nodes = pool.model_dump(mode="json", include={"node_labels", "tolerations", "topology"})
    digest = hashlib.sha256(json.dumps(nodes, sort_keys=True).encode()).hexdigest()
    return f"abruzzi-{pool.cohort}-{digest[:8]}"


def pool_objects(pool: PoolSpec, *, namespace: str) -> list[tuple[Resource, Object]]:
    """In the order in which they can be applied; nothing for a pool without quota."""
    if pool.quota is None:
        return []
    name, shared = f"abruzzi-{pool.name}", flavor_name(pool)
    # Said when it is empty, too: a spec whose last field is taken away by a server-side apply is null, which the apiserver refuses.
    flavor: Object = {"nodeLabels": dict(pool.node_labels)}
    if pool.tolerations:
        flavor["tolerations"] = [t.model_dump(exclude_none=True) for t in pool.tolerations]
    platform = {LABEL_STAGES_NAMESPACE: namespace}
    own = {**platform, LABEL_POOL: pool.name}
    owner = own if pool.cohort is None else {**platform, LABEL_COHORT: pool.cohort}
    made: list[tuple[Resource, Object]] = []
    if pool.topology:
        levels = [{"nodeLabel": level} for level in pool.topology]
        made.append((TOPOLOGIES, _object(TOPOLOGIES, shared, owner, spec={"levels": levels})))
        flavor["topologyName"] = shared
    made.append((RESOURCE_FLAVORS, _object(RESOURCE_FLAVORS, shared, owner, spec=flavor)))
    group = {"coveredResources": _covered(pool), "flavors": [{"name": shared, "resources": _quotas(pool, pool.quota)}]}
    queue: Object = {"namespaceSelector": {}, "resourceGroups": [group]}
    if pool.cohort is not None:
        queue["cohortName"] = pool.cohort
        queue["preemption"] = {"reclaimWithinCohort": "Any"}
    made.append((CLUSTER_QUEUES, _object(CLUSTER_QUEUES, name, own, spec=queue)))
    local = _object(LOCAL_QUEUES, pool.name, own, spec={"clusterQueue": name})
    local["metadata"]["namespace"] = namespace
    made.append((LOCAL_QUEUES, local))
    return made


def _covered(pool: PoolSpec) -> list[str]:
    return ["cpu", "memory", *([GPU] if pool.rank.gpus or (pool.quota and pool.quota.gpus) else [])]


def _quotas(pool: PoolSpec, quota: Amounts) -> list[Object]:
    borrow = pool.borrow
    amounts = {"cpu": quota.cpus, "memory": quota.memory, GPU: quota.gpus}
    limits = {"cpu": borrow.cpus, "memory": borrow.memory, GPU: borrow.gpus} if borrow else {}
    return [
        {"name": name, "nominalQuota": _quantity(name, amounts[name])}
        | ({"borrowingLimit": _quantity(name, limits[name])} if limits else {})
        for name in _covered(pool)
    ]


def _quantity(name: str, amount: float) -> str:
    """As Kubernetes writes it back, so that a server-side apply of the same pool changes nothing."""
    return f"{round(amount * 1000)}m" if name == "cpu" and amount != int(amount) else str(int(amount))


def _object(resource: Resource, name: str, owner: dict[str, str], **fields: Any) -> Object:
    made = resource.new(name, **fields)
    made["metadata"]["labels"] = {MANAGED_BY: MANAGER, **owner}
    return made
