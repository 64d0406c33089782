"""KubeRay is served by a cluster that was asked for it, and Kueue holds its jobs. (A TrainJob and a PyTorchJob run in test_cluster_executor.)"""

from __future__ import annotations

from typing import Any

from cluster.components import wait_until
from cluster.handle import ClusterHandle


def ray_job(image: str) -> dict[str, Any]:
    pod = {"spec": {"containers": [{"name": "ray", "image": image}]}}
    cluster = {"headGroupSpec": {"rayStartParams": {}, "template": pod}}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": "held", "labels": {"kueue.x-k8s.io/queue-name": "nowhere"}},
        "spec": {"entrypoint": "true", "shutdownAfterJobFinishes": True, "rayClusterSpec": cluster},
    }


def test_kueue_suspends_a_rayjob_and_kuberay_says_so(cluster: ClusterHandle, namespace: str):
    cluster.install("kueue", "kuberay")
    cluster.kubectl.create(ray_job(cluster.image("busybox")), namespace=namespace)

    def is_suspended() -> bool:
        job = cluster.get("rayjob", "held", namespace)
        return job["spec"].get("suspend") and job.get("status", {}).get("jobDeploymentStatus") == "Suspended"

    wait_until(
        "the RayJob is suspended", is_suspended, seconds=240, last_words=lambda: cluster.what_happened(namespace)
    )
    assert cluster.kubectl.json("get", "pods", "-n", namespace)["items"] == []
