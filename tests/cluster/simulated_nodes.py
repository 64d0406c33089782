"""Simulated H800 nodes by KWOK: they accept pods and report states, nothing runs on them.

A node has 8 `nvidia.com/gpu`, labels for its block, rack and host, and a taint, so that only pods that ask for it land there.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cluster.binaries import KWOK, Toolbox, module_folder
from cluster.components import Component, wait_until
from cluster.control_plane import admin_client
from cluster.errors import ClusterError
from cluster.layout import HOST_ADDRESS, Layout

LABEL = "type"
KIND = "kwok"
FLAVOR_LABEL, FLAVOR = "abruzzi.io/flavor", "h800"
BLOCK_LABEL, RACK_LABEL = "abruzzi.io/block", "abruzzi.io/rack"
TAINT = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}
NODES_PER_RACK, RACKS_PER_BLOCK = 4, 4
CAPACITY = {"cpu": "192", "memory": "2Ti", "pods": "110", "nvidia.com/gpu": "8", "ephemeral-storage": "10Ti"}
STAGES = (
    *("node/fast/node-initialize.yaml", "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml"),
    *("pod/fast/pod-ready.yaml", "pod/fast/pod-complete.yaml", "pod/fast/pod-delete.yaml"),
)
LEASE_SECONDS = 40
THREADS = 8
READY_SECONDS = 240.0


def node_name(index: int) -> str:
    return f"h800-{index:04d}"


def node(index: int) -> dict[str, Any]:
    rack = index // NODES_PER_RACK
    block = rack // RACKS_PER_BLOCK
    name = node_name(index)
    labels = {
        LABEL: KIND,
        FLAVOR_LABEL: FLAVOR,
        BLOCK_LABEL: f"block-{block}",
        RACK_LABEL: f"rack-{rack}",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "nvidia.com/gpu.product": "NVIDIA-H800",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {TAINT["key"]: TAINT["value"]}},
        "spec": {"taints": [TAINT]},
        "status": {"capacity": CAPACITY, "allocatable": CAPACITY},
    }


def start(layout: Layout, tools: Toolbox, stages: tuple[str, ...] = STAGES, *, log: str = "") -> None:
    """KWOK's controller as a process of the host. Other `stages` (paths below kustomize/stage, or whole) make pods behave otherwise.

    `log`: what every pod has printed; the apiserver then finds KWOK where it looks for their kubelets.
    """
    kwok = Component("kwok", layout)
    if kwok.pid is not None:
        return
    folder = module_folder(KWOK) / "kustomize" / "stage"
    configs = [f"--config={folder / stage}" for stage in stages]
    if log:
        configs.append(f"--config={_log_config(layout, log)}")
    kwok.start(
        [
            *(tools.path("kwok"), f"--kubeconfig={layout.kubeconfig()}", *configs),
            *(f"--manage-nodes-with-label-selector={LABEL}={KIND}", f"--node-lease-duration-seconds={LEASE_SECONDS}"),
            *("--cidr=10.200.0.1/13", f"--node-ip={HOST_ADDRESS if log else '10.199.0.1'}", "--node-port=10247"),
        ]
    )


def _log_config(layout: Layout, text: str) -> Path:
    printed, config = layout.state / "simulated.log", layout.state / "simulated-logs.yaml"
    printed.write_text(text)
    config.write_text(
        "apiVersion: kwok.x-k8s.io/v1alpha1\nkind: ClusterLogs\nmetadata: {name: all}\n"
        f"spec: {{logs: [{{logsFile: {printed}, follow: false}}]}}\n"
    )
    return config


def add(layout: Layout, tools: Toolbox, count: int) -> None:
    """Nodes 0 to count − 1, those that are there already left alone; returns when all are Ready."""
    start(layout, tools)
    local = threading.local()
    with admin_client(layout) as shared:

        def create(index: int) -> None:
            client = local.client = getattr(local, "client", None) or admin_client(layout)
            answer = client.post("/api/v1/nodes", json=node(index))
            if answer.status_code not in (201, 409):
                raise ClusterError(f"node {node_name(index)} was refused ({answer.status_code}): {answer.text}")

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(create, range(count)))
        wanted = {node_name(index) for index in range(count)}
        wait_until(
            f"{count} simulated nodes are Ready",
            lambda: wanted <= set(_ready(shared)),
            seconds=READY_SECONDS,
            last_words=Component("kwok", layout).last_words,
        )


def _ready(client: Any) -> Iterator[str]:
    answer = client.get("/api/v1/nodes", params={"labelSelector": f"{LABEL}={KIND}", "resourceVersion": "0"})
    for each in answer.raise_for_status().json()["items"]:
        conditions = each["status"].get("conditions", [])
        if any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions):
            yield each["metadata"]["name"]


def pull_plug(kubectl: Any, name: str) -> None:
    """Nothing is said to anybody: its lease is not renewed any more, its pods stand still."""
    kubectl("label", "node", name, f"{LABEL}=dead", "--overwrite")


def say_unreachable(kubectl: Any, name: str) -> None:
    """What the node lifecycle controller says some 40 s after it has last heard a kubelet."""
    ready = {
        "type": "Ready",
        "status": "Unknown",
        "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.",
    }
    patch = json.dumps({"status": {"conditions": [ready]}})
    kubectl("patch", "node", name, "--subresource=status", "--type=strategic", "-p", patch)


def plug_in(kubectl: Any, name: str) -> None:
    """It comes back; KWOK makes it Ready."""
    kubectl("label", "node", name, f"{LABEL}={KIND}", "--overwrite")
