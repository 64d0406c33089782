"""Kubeflow Trainer and KubeRay are served by a cluster that was asked for them, and a TrainJob really runs."""

from __future__ import annotations

from typing import Any

from cluster import installs
from cluster.handle import ClusterHandle

TRAINER = "trainer.kubeflow.org/v1alpha1"
STEP = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}


def runtime(image: str) -> dict[str, Any]:
    """Two nodes by torch's rules; the one replicated job must be called `node`, as its container."""
    container = {"name": "node", "image": image, "imagePullPolicy": "IfNotPresent"}
    pod = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    job = {"name": "node", "template": {"metadata": {"labels": STEP}, "spec": {"backoffLimit": 0, "template": pod}}}
    return {
        "apiVersion": TRAINER,
        "kind": "TrainingRuntime",
        "metadata": {"name": "pair", "labels": {"trainer.kubeflow.org/framework": "torch"}},
        "spec": {
            "mlPolicy": {"numNodes": 2, "torch": {"numProcPerNode": 1}},
            "template": {"spec": {"replicatedJobs": [job]}},
        },
    }


def test_a_trainjob_runs_on_two_nodes_that_know_their_ranks(cluster: ClusterHandle, namespace: str):
    cluster.install("trainer")
    script = "echo node $PET_NODE_RANK of $PET_NNODES at $PET_MASTER_ADDR:$PET_MASTER_PORT"
    train_job = {
        "apiVersion": TRAINER,
        "kind": "TrainJob",
        "metadata": {"name": "pair"},
        "spec": {
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": "pair"},
            "trainer": {"image": cluster.image("busybox"), "command": ["/bin/sh", "-c", script], "numNodes": 2},
        },
    }
    cluster.kubectl.create(runtime(cluster.image("busybox")), namespace=namespace)
    cluster.kubectl.create(train_job, namespace=namespace)
    cluster.kubectl.wait("trainjob/pair", "condition=Complete", namespace=namespace, seconds=180)
    said = cluster.kubectl("logs", "-n", namespace, "-l", "jobset.sigs.k8s.io/jobset-name=pair", "--prefix=false")
    assert sorted(said.splitlines()) == [
        "node 0 of 2 at pair-node-0-0.pair:29400",
        "node 1 of 2 at pair-node-0-0.pair:29400",
    ]


def test_kuberay_serves_rayjobs_beside_kueue(cluster: ClusterHandle):
    cluster.install("kueue", "kuberay")
    there = installs.served_crds(cluster.kubectl)
    assert {"rayjobs.ray.io", "rayclusters.ray.io", "workloads.kueue.x-k8s.io"} <= there
    assert "ray.io/rayjob" in cluster.kubectl(
        "get", "configmap", "kueue-manager-config", "-n", "kueue-system", "-o", "yaml"
    )
