"""A stage on a Ray cluster of its own: one head and workers, one pod a node, the stage's program as the entrypoint of a RayJob."""

from __future__ import annotations

from typing import Any

from abruzzi.contracts.stage import StageSpec
from abruzzi_operators.renderers.metadata import workload_metadata
from abruzzi_operators.renderers.placement import Placement
from abruzzi_operators.renderers.pod import pod_template

RAY_VERSION = "2.60.0"
OBJECT_STORE_SHARE = 0.2
"""Of a pod's memory, for Ray's shared objects."""


def rayjob(spec: StageSpec, placement: Placement, *, ray_version: str = RAY_VERSION) -> dict[str, Any]:
    """The launcher runs beside the head, where the job is submitted from; `backoffLimit` 0: only the engine retries."""
    nodes = placement.nodes(spec.world_size)
    start = _start_parameters(spec, placement)
    groups = []
    if nodes > 1:
        workers = {"groupName": "workers", "replicas": nodes - 1, "minReplicas": nodes - 1, "maxReplicas": nodes - 1}
        groups = [{**workers, "rayStartParams": start, "template": _ray_pod(spec, placement)}]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": workload_metadata(spec, placement),
        "spec": {
            "suspend": bool(placement.queue),
            "jobId": spec.attempt_id,
            "entrypoint": "python -m abruzzi_operators.launcher.pod",
            "submissionMode": "HTTPMode",
            "backoffLimit": 0,
            "shutdownAfterJobFinishes": True,
            "rayClusterSpec": {
                "rayVersion": ray_version,
                "enableInTreeAutoscaling": False,
                "headGroupSpec": {
                    "rayStartParams": {**start, "dashboard-host": "0.0.0.0"},
                    "template": _ray_pod(spec, placement),
                },
                **({"workerGroupSpecs": groups} if groups else {}),
            },
        },
    }


def _ray_pod(spec: StageSpec, placement: Placement) -> dict[str, Any]:
    """KubeRay sets the command: `ray start` as head or worker."""
    template = pod_template(spec, placement, container="ray")
    del template["spec"]["containers"][0]["command"]
    return template


def _start_parameters(spec: StageSpec, placement: Placement) -> dict[str, str]:
    """Strings: KubeRay passes them on to `ray start`."""
    ranks = placement.ranks_on_a_node(spec.world_size)
    each = placement.resources
    return {
        "num-cpus": str(max(1, int(each.cpu_cores * ranks))),
        "object-store-memory": str(int(each.memory_bytes * ranks * OBJECT_STORE_SHARE)),
    }
