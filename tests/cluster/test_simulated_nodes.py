"""Simulated H800 nodes: Ready, labelled for topology, and pods that ask for GPUs land there."""

from __future__ import annotations

from cluster.handle import ClusterHandle


def test_simulated_nodes_are_ready_with_eight_gpus_and_their_place(cluster: ClusterHandle):
    names = cluster.add_simulated_nodes(32)
    nodes = {
        each["metadata"]["name"]: each for each in cluster.kubectl.json("get", "nodes", "-l", "type=kwok")["items"]
    }
    assert set(names) <= set(nodes)
    assert all(nodes[name]["status"]["allocatable"]["nvidia.com/gpu"] == "8" for name in names)
    labels = [nodes[name]["metadata"]["labels"] for name in names]
    assert len({each["abruzzi.io/rack"] for each in labels}) == 8
    assert len({each["abruzzi.io/block"] for each in labels}) == 2


def test_pods_that_ask_for_gpus_are_bound_to_simulated_nodes_and_end(cluster: ClusterHandle, namespace: str):
    cluster.add_simulated_nodes(4)
    container = {"name": "main", "image": "none", "resources": {"limits": {"nvidia.com/gpu": 8}}}
    tolerations = [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}]
    template = {"spec": {"restartPolicy": "Never", "tolerations": tolerations, "containers": [container]}}
    spec = {"completions": 4, "parallelism": 4, "completionMode": "Indexed", "backoffLimit": 0, "template": template}
    cluster.kubectl.create(
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "wide"}, "spec": spec}, namespace=namespace
    )
    cluster.kubectl.wait("job/wide", "condition=Complete", namespace=namespace)
    pods = cluster.kubectl.json("get", "pods", "-n", namespace)["items"]
    assert len(pods) == 4
    assert all(each["spec"]["nodeName"].startswith("h800-") for each in pods)
