"""Kueue and the training operator do what they do: admit, run in two pods, hold what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
from cluster.components import wait_until
from cluster.handle import ClusterHandle


@pytest.fixture
def queue(cluster: ClusterHandle, namespace: str):
    """A LocalQueue called `queue` in the test's namespace, with one CPU to give."""
    cluster.install("training-operator", "kueue")
    resource = {"name": "cpu", "nominalQuota": 1}
    group = {"coveredResources": ["cpu"], "flavors": [{"name": namespace, "resources": [resource]}]}
    kueue = "kueue.x-k8s.io/v1beta2"
    cluster.kubectl.apply(
        {"apiVersion": kueue, "kind": "ResourceFlavor", "metadata": {"name": namespace}},
        {
            "apiVersion": kueue,
            "kind": "ClusterQueue",
            "metadata": {"name": namespace},
            "spec": {"namespaceSelector": {}, "resourceGroups": [group]},
        },
        {
            "apiVersion": kueue,
            "kind": "LocalQueue",
            "metadata": {"name": "queue", "namespace": namespace},
            "spec": {"clusterQueue": namespace},
        },
    )
    yield "queue"
    cluster.kubectl.try_run("delete", "clusterqueue", namespace, "--wait=false")
    cluster.kubectl.try_run("delete", "resourceflavor", namespace, "--wait=false")


def pytorch_job(name: str, image: str, script: str, *, workers: int = 1, cpu: str = "100m") -> dict[str, Any]:
    container = {
        "name": "pytorch",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", script],
        "resources": {"requests": {"cpu": cpu}},
    }
    template = {"spec": {"containers": [container]}}
    replicas = {"Master": {"replicas": 1, "restartPolicy": "Never", "template": template}}
    if workers:
        replicas["Worker"] = {"replicas": workers, "restartPolicy": "Never", "template": template}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name, "labels": {"kueue.x-k8s.io/queue-name": "queue"}},
        "spec": {"runPolicy": {"cleanPodPolicy": "None"}, "pytorchReplicaSpecs": replicas},
    }


def test_an_admitted_pytorchjob_runs_in_two_pods_that_know_their_ranks(
    cluster: ClusterHandle, namespace: str, queue: str
):
    # A PyTorchJob has succeeded as soon as its master has, so the master waits for the worker's word.
    script = (
        "echo rank $RANK of $WORLD_SIZE at $MASTER_ADDR:$MASTER_PORT;"
        "if [ $RANK = 0 ]; then nc -l -p $MASTER_PORT; else until echo from $RANK | nc $MASTER_ADDR $MASTER_PORT; do sleep 0.1; done; fi"
    )
    cluster.kubectl.create(pytorch_job("pair", cluster.image("busybox"), script), namespace=namespace)
    cluster.kubectl.wait("pytorchjob/pair", "condition=Succeeded", namespace=namespace, seconds=120)
    master, worker = (cluster.kubectl("logs", f"pair-{role}-0", "-n", namespace) for role in ("master", "worker"))
    assert master.startswith("rank 0 of 2 at ")
    assert master.endswith("from 1\n")
    assert worker == "rank 1 of 2 at pair-master-0:23456\n"
    workload = cluster.kubectl.json("get", "workloads", "-n", namespace)["items"][0]
    states = {each["type"]: each["status"] for each in workload["status"]["conditions"]}
    assert states["Admitted"] == "True"


def test_a_job_beyond_the_quota_is_held_with_a_reason(cluster: ClusterHandle, namespace: str, queue: str):
    large = pytorch_job("large", cluster.image("busybox"), "exit 0", workers=0, cpu="3")
    cluster.kubectl.create(large, namespace=namespace)

    def reasons() -> list[str]:
        items = cluster.kubectl.json("get", "workloads", "-n", namespace)["items"]
        conditions = [each for item in items for each in item.get("status", {}).get("conditions", [])]
        return [each["message"] for each in conditions if each["type"] == "QuotaReserved" and each["status"] == "False"]

    wait_until("Kueue says why it holds the job", reasons, seconds=30)
    assert "cpu" in reasons()[0]
    assert cluster.kubectl.json("get", "pods", "-n", namespace)["items"] == []
