"""The pod of one node's ranks: restricted Pod Security, the launcher as its first process, everything private from one Secret.

No string of a user becomes any field but `command`, `args` and the value of an environment variable (and `image`, of a `container` stage).
"""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from typing import Any

from abruzzi.contracts.stage import (
    ENV_ATTEMPT,
    ENV_ATTEMPT_DIR,
    ENV_EPOCH,
    ENV_RESUME,
    ENV_RUN,
    ENV_SANDBOXES_URL,
    ENV_SECRET_DIR,
    ENV_SPEC,
    ENV_STAGE,
    ENV_STORE_CREDENTIALS,
    ENV_TOKEN,
    ENV_URL,
    S3Store,
    StageSpec,
)
from abruzzi_operators.renderers.names import (
    ANNOTATION_FOREIGN,
    ANNOTATION_PODSET_GROUP,
    ANNOTATION_PREFERRED_TOPOLOGY,
    ANNOTATION_REQUIRED_TOPOLOGY,
    ANNOTATION_STACKS,
    attempt_labels,
    object_name,
)
from abruzzi_operators.renderers.placement import Placement

SECRET_DIR = "/abruzzi/secret"
ATTEMPT_DIR = "/abruzzi/attempt"
POD_DIR = "/abruzzi/pod"
TERMINATION_LOG = "/dev/termination-log"
USER_ID = 10001
"""Of the images; also the group that may read the Secret's files."""
MASTER_PORT = 23456
GPU = "nvidia.com/gpu"
PODSET_GROUP = "ranks"
LAUNCHER = ("python", "-m", "abruzzi_operators.launcher.pod")

SECRET_SPEC, SECRET_TOKEN, SECRET_CREDENTIALS = "spec.json", "token", "credentials.json"

POD_SECURITY: dict[str, Any] = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod_template(spec: StageSpec, placement: Placement, *, container: str) -> dict[str, Any]:
    """`container`: the name that the operator of the kind looks for."""
    return {
        "metadata": {"labels": pod_labels(spec, placement), "annotations": pod_annotations(spec, placement)},
        "spec": {
            **pod_settings(spec, placement),
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": placement.grace_seconds,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": POD_SECURITY,
            "containers": [{"name": container, **container_fields(spec, placement)}],
        },
    }


def pod_labels(spec: StageSpec, placement: Placement) -> dict[str, str]:
    return {**placement.labels, **attempt_labels(spec)}


def pod_annotations(spec: StageSpec, placement: Placement) -> dict[str, str]:
    annotations = dict(placement.additions.annotations)
    if placement.required_topology:
        annotations[ANNOTATION_REQUIRED_TOPOLOGY] = placement.required_topology
    elif placement.preferred_topology:
        annotations[ANNOTATION_PREFERRED_TOPOLOGY] = placement.preferred_topology
    if placement.is_foreign(spec):
        annotations[ANNOTATION_FOREIGN] = "true"
    return annotations


def keep_together(template: dict[str, Any], placement: Placement) -> None:
    """For the two templates of a workload of one first pod and others: without it Kueue looks for a rack for the first, and for another,
    perhaps, for the others."""
    if placement.required_topology or placement.preferred_topology:
        template["metadata"]["annotations"][ANNOTATION_PODSET_GROUP] = PODSET_GROUP


def pod_settings(spec: StageSpec, placement: Placement) -> dict[str, Any]:
    """Fields of the pod that say where it runs and what is mounted; absent rather than empty."""
    settings: dict[str, Any] = {
        "nodeSelector": dict(placement.node_selector),
        "tolerations": [dict(t) for t in placement.tolerations] + _lost_node_tolerations(placement.lost_node_seconds),
        "affinity": _affinity(placement),
        "serviceAccountName": placement.service_account,
        "imagePullSecrets": [{"name": name} for name in placement.additions.image_pull_secrets],
        "volumes": volumes(spec, placement),
    }
    return {name: value for name, value in settings.items() if value}


def container_fields(spec: StageSpec, placement: Placement) -> dict[str, Any]:
    """All of a container but its name."""
    foreign = placement.is_foreign(spec)
    own = spec.config.get("container") or {}
    return {
        "image": own["image"] if foreign else placement.image,
        "imagePullPolicy": placement.image_pull_policy,
        "command": list(own["command"]) if foreign else list(LAUNCHER),
        "env": environment(spec, placement),
        "resources": resources(spec, placement),
        "volumeMounts": volume_mounts(placement),
        "workingDir": ATTEMPT_DIR,
        "terminationMessagePath": TERMINATION_LOG,
        # A foreign image writes no outcome: the end of its log is the next best word.
        "terminationMessagePolicy": "FallbackToLogsOnError" if foreign else "File",
        "securityContext": CONTAINER_SECURITY,
    }


def environment(spec: StageSpec, placement: Placement) -> list[dict[str, Any]]:
    """For our launcher: where things are; it makes the contract's environment itself. For a foreign image: the contract's environment."""
    world_size, on_a_node = spec.world_size, placement.ranks_on_a_node(spec.world_size)
    variables: dict[str, str] = {
        "HOME": ATTEMPT_DIR,
        ENV_URL: placement.api_url,
        ENV_ATTEMPT_DIR: ATTEMPT_DIR,
        **placement.additions.env,
    }
    if placement.sandboxes_url:
        variables[ENV_SANDBOXES_URL] = placement.sandboxes_url
    if isinstance(spec.store, S3Store):
        variables[ENV_STORE_CREDENTIALS] = os.path.join(SECRET_DIR, SECRET_CREDENTIALS)
    if placement.is_foreign(spec):
        variables = {str(k): str(v) for k, v in (spec.config["container"].get("env") or {}).items()} | variables
        variables |= {
            ENV_SPEC: os.path.join(SECRET_DIR, SECRET_SPEC),
            ENV_TOKEN: os.path.join(SECRET_DIR, SECRET_TOKEN),
            ENV_RUN: spec.run_id,
            ENV_STAGE: spec.stage_id,
            ENV_ATTEMPT: spec.attempt_id,
            ENV_EPOCH: str(spec.epoch),
            ENV_RESUME: spec.resume.manifest_key if spec.resume else "",
        }
        if placement.nodes(world_size) == 1:  # otherwise the operator of the kind sets them
            variables |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(world_size)}
            variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(MASTER_PORT)}
    else:
        variables |= {
            ENV_SECRET_DIR: SECRET_DIR,
            "ABRUZZI_POD_DIR": POD_DIR,
            "ABRUZZI_RANKS_PER_NODE": str(on_a_node),
            "ABRUZZI_CPUS": str(max(1, int(placement.resources.cpu_cores * on_a_node))),
            "ABRUZZI_GRACE_SECONDS": str(max(1, placement.grace_seconds - 5)),
        }
    node = {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}
    return [*({"name": name, "value": value} for name, value in variables.items()), node]


def resources(spec: StageSpec, placement: Placement) -> dict[str, Any]:
    """Memory and devices are requested and limited alike. CPU has no limit: a throttled rank would hold up all others."""
    ranks = placement.ranks_on_a_node(spec.world_size)
    each = placement.resources
    bound: dict[str, str] = {"memory": str(each.memory_bytes * ranks)}
    if each.gpus:
        bound[GPU] = str(each.gpus * ranks)
    bound |= {name: str(count) for name, count in placement.additions.extended_resources.items()}
    return {"requests": {"cpu": cpu_quantity(each.cpu_cores * ranks), **bound}, "limits": bound}


def volumes(spec: StageSpec, placement: Placement) -> list[dict[str, Any]]:
    # 0440 with the pod's group: the kubelet's files belong to root.
    secret = {"secretName": object_name(spec), "defaultMode": 0o440}
    stacks = {"path": "stacks", "fieldRef": {"fieldPath": f"metadata.annotations['{ANNOTATION_STACKS}']"}}
    return [
        {"name": "secret", "secret": secret},
        {"name": "attempt", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "pod", "downwardAPI": {"items": [stacks]}},
        *(dict(volume) for volume in placement.additions.volumes),
    ]


def volume_mounts(placement: Placement) -> list[dict[str, Any]]:
    return [
        {"name": "secret", "mountPath": SECRET_DIR, "readOnly": True},
        {"name": "attempt", "mountPath": ATTEMPT_DIR},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "pod", "mountPath": POD_DIR, "readOnly": True},
        *(dict(mount) for mount in placement.additions.volume_mounts),
    ]


def cpu_quantity(cores: float) -> str:
    """Whole cores as such, parts in millicores."""
    return str(int(cores)) if cores == int(cores) else f"{round(cores * 1000)}m"


def _lost_node_tolerations(seconds: int) -> list[dict[str, Any]]:
    return [
        {
            "key": f"node.kubernetes.io/{state}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": seconds,
        }
        for state in ("not-ready", "unreachable")
    ]


def _affinity(placement: Placement) -> Mapping[str, Any]:
    """Avoided, not forbidden (engine/ports.py): where no other node is left, an attempt on a doubtful one beats one that waits for ever."""
    if not placement.excluded_nodes:
        return {}
    away = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": sorted(placement.excluded_nodes)}
    preferred = [{"weight": 100, "preference": {"matchExpressions": [away]}}]
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
