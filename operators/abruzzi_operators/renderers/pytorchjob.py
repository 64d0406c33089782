"""Ranks on several nodes: a Kubeflow Training v1 PyTorchJob of one master and n - 1 workers, one pod a node.

The models of `kubeflow-training` are serialised by that package's own ApiClient: with kubernetes 37 and newer the plain one gives
snake_case without any error (design section 5; a test sends one to a real apiserver under strict validation).
"""

from __future__ import annotations

from typing import Any

from kubeflow.training import (
    ApiClient,
    KubeflowOrgV1PyTorchJob,
    KubeflowOrgV1PyTorchJobSpec,
    KubeflowOrgV1ReplicaSpec,
    KubeflowOrgV1RunPolicy,
)

from abruzzi.contracts.stage import StageSpec
from abruzzi_operators.renderers.metadata import workload_metadata
from abruzzi_operators.renderers.placement import Placement
from abruzzi_operators.renderers.pod import MASTER_PORT, keep_together, pod_template

CONTAINER = "pytorch"
PORT_NAME = "pytorchjob-port"


def pytorchjob(spec: StageSpec, placement: Placement) -> dict[str, Any]:
    template = pod_template(spec, placement, container=CONTAINER)
    template["spec"]["containers"][0]["ports"] = [{"name": PORT_NAME, "containerPort": MASTER_PORT}]
    nodes = placement.nodes(spec.world_size)
    if nodes > 1:
        keep_together(template, placement)
    replicas = {"Master": _replicas(1, template)}
    if nodes > 1:
        replicas["Worker"] = _replicas(nodes - 1, template)
    made = KubeflowOrgV1PyTorchJob(
        api_version="kubeflow.org/v1",
        kind="PyTorchJob",
        metadata=workload_metadata(spec, placement),
        spec=KubeflowOrgV1PyTorchJobSpec(
            nproc_per_node=str(placement.ranks_on_a_node(spec.world_size)),
            pytorch_replica_specs=replicas,
            run_policy=KubeflowOrgV1RunPolicy(
                backoff_limit=0, clean_pod_policy="Running", suspend=bool(placement.queue)
            ),
        ),
    )
    return ApiClient().sanitize_for_serialization(made)


def _replicas(count: int, template: dict[str, Any]) -> KubeflowOrgV1ReplicaSpec:
    return KubeflowOrgV1ReplicaSpec(replicas=count, restart_policy="Never", template=template)
