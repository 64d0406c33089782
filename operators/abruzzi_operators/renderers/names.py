"""Names, labels and annotations of everything that Abruzzi makes in a cluster."""

from __future__ import annotations

from abruzzi.contracts.stage import StageSpec, workload_name

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "abruzzi"
LABEL_PROJECT = "abruzzi.io/project"
LABEL_RUN = "abruzzi.io/run"
LABEL_STAGE = "abruzzi.io/stage"
LABEL_ATTEMPT = "abruzzi.io/attempt"
LABEL_EPOCH = "abruzzi.io/epoch"
LABEL_STAGES_NAMESPACE = "abruzzi.io/stages-namespace"
"""On what belongs to no namespace: that of the stages of the platform that made it. A cluster may have several platforms."""
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"
ANNOTATION_DIGEST = "abruzzi.io/spec-digest"
ANNOTATION_FOREIGN = "abruzzi.io/foreign-image"
"""`true`: no launcher of ours is in the pod, so exit codes and logs are the kubelet's."""
ANNOTATION_NODES = "abruzzi.io/nodes"
"""On a workload: how many pods it has, one a node."""
ANNOTATION_RANKS = "abruzzi.io/ranks-per-node"
ANNOTATION_ROOM = "abruzzi.io/room"
"""On the workload of an elastic stage: what one rank asks of which nodes, so that whoever looks can count the places (executors/room.py)."""
ANNOTATION_FRAMEWORK = "abruzzi.io/framework"
"""On a workload: `ray` where the end of its head pod is the end of the stage."""
ANNOTATION_STACKS = "abruzzi.io/stacks"
"""On a pod: `<rank> <time>`; the launcher reads it through the downward API and keeps that rank's stacks."""
ANNOTATION_REQUIRED_TOPOLOGY = "kueue.x-k8s.io/podset-required-topology"
ANNOTATION_PREFERRED_TOPOLOGY = "kueue.x-k8s.io/podset-preferred-topology"
ANNOTATION_PODSET_GROUP = "kueue.x-k8s.io/podset-group-name"
OWN_LABELS = (MANAGED_BY, LABEL_PROJECT, LABEL_RUN, LABEL_STAGE, LABEL_ATTEMPT, LABEL_EPOCH)
SELECTOR = f"{MANAGED_BY}={MANAGER},{LABEL_ATTEMPT}"
"""Objects of attempts."""


def attempt_labels(spec: StageSpec) -> dict[str, str]:
    return {
        MANAGED_BY: MANAGER,
        LABEL_PROJECT: spec.project_id,
        LABEL_RUN: spec.run_id,
        LABEL_STAGE: spec.stage_id,
        LABEL_ATTEMPT: spec.attempt_id,
        LABEL_EPOCH: str(spec.epoch),
    }


def object_name(spec: StageSpec) -> str:
    """Of the workload and of its Secret."""
    return workload_name(spec.attempt_id)
