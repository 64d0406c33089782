"""A stage on a Ray cluster of its own: one head and workers, one pod a node, the launcher as the entrypoint of a RayJob.

The launcher runs on the head, where the job is submitted from, and starts rank 0; the other ranks are the nodes that its tasks run on. Always
with a token, which KubeRay makes for each cluster (design section 7; a Ray port without one runs whatever it is sent).
"""

from __future__ import annotations

from typing import Any

from abruzzi.contracts.stage import StageSpec
from abruzzi_operators.renderers.metadata import workload_metadata
from abruzzi_operators.renderers.names import ANNOTATION_FRAMEWORK
from abruzzi_operators.renderers.placement import Placement
from abruzzi_operators.renderers.pod import LAUNCHER, keep_together, pod_template

RAY_VERSION = "2.60.0"
"""Of the lock file; a test holds the two together."""
OBJECT_STORE_SHARE = 0.2
"""Of a pod's memory, for Ray's shared objects."""
GCS_PORT = 6379
DASHBOARD_PORT = 8265
"""Where KubeRay submits the job."""
AGENT_PORT = 52365
"""Of each node's agent; KubeRay's own probes ask it, too, but by a `wget` that the image need not have."""
RUNTIME_AGENT_PORT = 52366
"""Of the head's agent for environments of tasks. Where it is not fixed, Ray's server for remote clients, which nobody asks here, waits 30 s for
the head to have told it, and takes the head down with it when that was busier."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}
PATIENCE = {
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "600",
    "RAY_NUM_REDIS_GET_RETRIES": "600",
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    "RAY_health_check_initial_delay_ms": "60000",
    "RAY_health_check_timeout_ms": "60000",
    "RAY_health_check_failure_threshold": "10",
}
"""Ray gives its own parts 20 to 60 s to start and to answer, and ends its node otherwise: on a machine with twice the load that it was made for
(2 cores, load 20) no head lived to take a job. What hangs for good, the engine's deadlines find."""


def rayjob(spec: StageSpec, placement: Placement, *, ray_version: str = RAY_VERSION) -> dict[str, Any]:
    """`backoffLimit` 0: only the engine retries."""
    nodes = placement.nodes(spec.world_size)
    start = _start_parameters(spec, placement)
    head, groups = _ray_pod(spec, placement, ready=DASHBOARD_PORT, alive=GCS_PORT), []
    if nodes > 1:
        workers = {"groupName": "workers", "replicas": nodes - 1, "minReplicas": nodes - 1, "maxReplicas": nodes - 1}
        template = _ray_pod(spec, placement, ready=AGENT_PORT, alive=AGENT_PORT)
        for each in (head, template):
            keep_together(each, placement)
        groups = [{**workers, "rayStartParams": start, "template": template}]
    metadata = workload_metadata(spec, placement)
    metadata["annotations"][ANNOTATION_FRAMEWORK] = "ray"
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": metadata,
        "spec": {
            "suspend": bool(placement.queue),
            "jobId": spec.attempt_id,
            "entrypoint": " ".join(LAUNCHER),
            "submissionMode": "HTTPMode",
            "backoffLimit": 0,
            "shutdownAfterJobFinishes": True,
            "rayClusterSpec": {
                "rayVersion": ray_version,
                "authOptions": {"mode": "token"},
                "enableInTreeAutoscaling": False,
                "headGroupSpec": {
                    "rayStartParams": {
                        **start,
                        "dashboard-host": "0.0.0.0",
                        "runtime-env-agent-port": str(RUNTIME_AGENT_PORT),
                    },
                    "template": head,
                },
                **({"workerGroupSpecs": groups} if groups else {}),
            },
        },
    }


def _ray_pod(spec: StageSpec, placement: Placement, *, ready: int, alive: int) -> dict[str, Any]:
    """KubeRay sets the command (`ray start` as head or worker) and mounts /dev/shm, as large as the container's memory: Ray's objects and weights on their way
    from a trainer to the engines of its node lie there."""
    template = pod_template(spec, placement, container="ray")
    container = template["spec"]["containers"][0]
    del container["command"]
    container["env"] += [{"name": name, "value": value} for name, value in (QUIET | PATIENCE).items()]
    container["readinessProbe"] = {"tcpSocket": {"port": ready}, "periodSeconds": 2, "failureThreshold": 10}
    # Ray ends its own node when a part of it dies; this is for one that hangs. A node that starts on a busy machine takes minutes.
    container["livenessProbe"] = {
        "tcpSocket": {"port": alive},
        "initialDelaySeconds": 300,
        "periodSeconds": 20,
        "timeoutSeconds": 10,
        "failureThreshold": 6,
    }
    return template


def _start_parameters(spec: StageSpec, placement: Placement) -> dict[str, str]:
    """Strings: KubeRay passes them on to `ray start`."""
    ranks = placement.ranks_on_a_node(spec.world_size)
    each = placement.resources
    return {
        "num-cpus": str(max(1, int(each.cpu_cores * ranks))),
        "object-store-memory": str(int(each.memory_bytes * ranks * OBJECT_STORE_SHARE)),
    }
