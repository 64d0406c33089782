"""Ranks on several nodes where the cluster serves Kubeflow Trainer v2 and not v1: a TrainJob on a TrainingRuntime of ours.

What a TrainJob cannot say (security context, exit handling, grace) lies in the runtime, which is the same for all attempts of a namespace.
Trainer 2.2 replaced `podTemplateOverrides` by `runtimePatches`: the CRD's schema says which one a cluster takes, never a version.
"""

from __future__ import annotations

from typing import Any, Literal

from abruzzi.contracts.stage import StageSpec
from abruzzi_operators.renderers.metadata import workload_metadata
from abruzzi_operators.renderers.names import MANAGED_BY, MANAGER
from abruzzi_operators.renderers.placement import Placement
from abruzzi_operators.renderers.pod import (
    ATTEMPT_DIR,
    CONTAINER_SECURITY,
    POD_SECURITY,
    TERMINATION_LOG,
    container_fields,
    pod_annotations,
    pod_labels,
    pod_settings,
)

API_VERSION = "trainer.kubeflow.org/v1alpha1"
RUNTIME = "abruzzi"
NODE = "node"
"""Name that Trainer gives the replicated job and its container."""
PATCH_MANAGER = "abruzzi.io/controller"

Overrides = Literal["podTemplateOverrides", "runtimePatches"]


def training_runtime(namespace: str, *, grace_seconds: int = 65) -> dict[str, Any]:
    """The runtime that every TrainJob of the namespace names."""
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": grace_seconds,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": POD_SECURITY,
        "containers": [{"name": NODE, "image": "replaced-by-the-train-job", **_fixed_container()}],
    }
    job = {
        "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
        "spec": {"backoffLimit": 0, "podReplacementPolicy": "Failed", "template": {"spec": pod}},
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingRuntime",
        "metadata": {
            "name": RUNTIME,
            "namespace": namespace,
            "labels": {MANAGED_BY: MANAGER, "trainer.kubeflow.org/framework": "torch"},
        },
        "spec": {
            "mlPolicy": {"numNodes": 1, "torch": {}},
            "template": {"spec": {"replicatedJobs": [{"name": NODE, "template": job}]}},
        },
    }


def trainjob(spec: StageSpec, placement: Placement, *, overrides: Overrides = "podTemplateOverrides") -> dict[str, Any]:
    container = container_fields(spec, placement)
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainJob",
        "metadata": workload_metadata(spec, placement),
        "spec": {
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": RUNTIME},
            "suspend": bool(placement.queue),
            "trainer": {
                "image": container["image"],
                "command": container["command"],
                "env": container["env"],
                "numNodes": placement.nodes(spec.world_size),
                "numProcPerNode": placement.ranks_on_a_node(spec.world_size),
                "resourcesPerNode": container["resources"],
            },
            overrides: [_override(spec, placement, container, overrides)],
        },
    }


def _override(spec: StageSpec, placement: Placement, container: dict[str, Any], overrides: Overrides) -> dict[str, Any]:
    metadata = {"labels": pod_labels(spec, placement), "annotations": pod_annotations(spec, placement)}
    pod = {
        **pod_settings(spec, placement),
        "containers": [{"name": NODE, "volumeMounts": container["volumeMounts"]}],
    }
    if overrides == "podTemplateOverrides":
        return {"targetJobs": [{"name": NODE}], "metadata": metadata, "spec": pod}
    template = {"spec": {"template": {"metadata": metadata, "spec": pod}}}
    jobs = [{"name": NODE, "template": template}]
    return {
        "manager": PATCH_MANAGER,
        "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": jobs}}},
    }


def _fixed_container() -> dict[str, Any]:
    """What no TrainJob may set: Trainer has no field for it."""
    return {
        "workingDir": ATTEMPT_DIR,
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "securityContext": CONTAINER_SECURITY,
    }
