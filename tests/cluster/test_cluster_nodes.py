"""Nodes of a real cluster, simulated by KWOK, that die and that are drained under a gang: it goes on elsewhere, and the node stays out of use.

The shortened twin of bench/node_death.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import simulated_nodes
from cluster.handle import ClusterHandle
from cluster.platform_process import PlatformProcess, open_platform

from abruzzi.contracts.node import NodeOut, NodeState
from abruzzi.contracts.pool import Amounts, PoolSpec, Toleration
from abruzzi.contracts.states import AttemptState, Cause
from abruzzi_operators.nodes.signals import TAINT_DRAIN, TAINT_QUARANTINE
from abruzzi_operators.supervisor.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

PODS = 4
DEADLINE = 240.0
POOL = PoolSpec(
    name="simulated", kind="kubernetes", flavor="H800", rank=Amounts(cpus=1.0, memory=1 << 30, gpus=8),
    node_labels={simulated_nodes.FLAVOR_LABEL: simulated_nodes.FLAVOR},
    tolerations=(Toleration(key=simulated_nodes.TAINT["key"]),), topology=(simulated_nodes.RACK_LABEL,),
)  # fmt: skip
RECIPE = f"""
version = 1
name = "gang"
[[stage]]
id = "work"
kind = "container"
[stage.container]
image = "docker.io/library/busybox:1"
command = ["train"]
[stage.resources]
pool = "simulated"
ranks = {PODS}
"""


class Gang:
    """A run of one stage of several pods, each on a node of its own."""

    def __init__(self, platform: PlatformProcess, cluster: ClusterHandle, namespace: str) -> None:
        self.platform, self._cluster, self._namespace = platform, cluster, namespace
        self.run_id = platform.submit(RECIPE)

    def nodes_of(self, number: int) -> dict[str, str]:
        """{pod: node} of the attempt's pods that have one and are not ending."""
        selector = f"abruzzi.io/attempt={self.run_id}-work-{number}"
        pods = self._cluster.kubectl.json("get", "pods", "-n", self._namespace, "-l", selector)["items"]
        bound = {
            p["metadata"]["name"]: p["spec"].get("nodeName") for p in pods if "deletionTimestamp" not in p["metadata"]
        }
        return {pod: node for pod, node in bound.items() if node}

    def until_works(self, number: int) -> set[str]:
        """Its nodes, once the attempt runs on as many as it asked for."""

        def works() -> bool:
            attempts = self.platform.attempts(self.run_id, "work")
            return (
                len(attempts) >= number
                and attempts[number - 1].state is AttemptState.RUNNING
                and len(self.nodes_of(number)) == PODS
            )

        self.platform.until(works, seconds=DEADLINE)
        return set(self.nodes_of(number).values())

    def node(self, name: str) -> NodeOut:
        with self.platform.client() as client:
            return client.nodes.get(name)

    def until_node(
        self, name: str, state: NodeState, holds: Callable[[NodeOut], object] = lambda node: True
    ) -> NodeOut:
        """It, once it is in that state and `holds`."""

        def is_there() -> object:
            node = self.node(name)
            return node.state is state and holds(node)

        self.platform.until(is_there, seconds=DEADLINE)
        return self.node(name)


def taints(cluster: ClusterHandle, name: str) -> set[str]:
    return {taint["key"] for taint in cluster.kubectl.json("get", "node", name)["spec"].get("taints", [])}


def takes_pods(cluster: ClusterHandle, name: str) -> bool:
    is_cordoned = cluster.kubectl.json("get", "node", name)["spec"].get("unschedulable")
    return not is_cordoned and not taints(cluster, name) & {TAINT_DRAIN, TAINT_QUARANTINE}


def test_a_gang_goes_on_elsewhere_when_a_node_dies_and_when_one_is_drained(
    cluster: ClusterHandle, namespace: str, tmp_path: Path
) -> None:
    cluster.install("training-operator")
    # More than are needed, so that one that dies and one that is drained leave enough.
    cluster.add_simulated_nodes(12)
    with (
        EmbeddedPostgres(tmp_path / "postgres") as postgres,
        open_platform(tmp_path / "platform", cluster, namespace, postgres) as platform,
    ):
        with platform.client() as client:
            client.pools.apply(POOL)
        gang = Gang(platform, cluster, namespace)
        first = gang.until_works(1)
        assert len(first) == PODS
        dies = sorted(first)[0]
        gang.until_node(dies, NodeState.READY)
        try:
            simulated_nodes.pull_plug(cluster.kubectl, dies)
            simulated_nodes.say_unreachable(cluster.kubectl, dies)
            second = gang.until_works(2)
            assert dies not in second
            ended = platform.attempts(gang.run_id, "work")[0]
            assert (ended.state, ended.cause) == (AttemptState.FAILED, Cause.NODE)
            assert "Kubelet stopped posting node status" in str(ended.reason)
            lost = gang.until_node(dies, NodeState.LOST)
            assert (lost.pool, lost.faults[0].kind, lost.gpus.total) == ("simulated", "lost", 8)
            platform.until(lambda: TAINT_QUARANTINE in taints(cluster, dies), seconds=DEADLINE)
        finally:
            simulated_nodes.plug_in(cluster.kubectl, dies)
        gang.until_node(dies, NodeState.QUARANTINED)

        wanted = sorted(second)[0]
        with platform.client() as client:
            on_it = [f"{gang.run_id}-work-2"]
            gang.until_node(wanted, NodeState.READY, lambda node: [a.attempt_id for a in node.attempts] == on_it)
            client.nodes.drain(wanted, "a fan")
            third = gang.until_works(3)
            assert wanted not in third
            assert dies not in third
            moved = platform.attempts(gang.run_id, "work")[1]
            assert (moved.state, moved.cause) == (AttemptState.INTERRUPTED, Cause.PREEMPTION)
            gang.until_node(
                wanted, NodeState.DRAINED, lambda node: node.cordoned and TAINT_DRAIN in taints(cluster, wanted)
            )
            for name in (wanted, dies):
                client.nodes.return_(name, "mended")
                gang.until_node(name, NodeState.READY, lambda node: takes_pods(cluster, node.name))
            client.runs.cancel(gang.run_id)
        platform.wait_end(gang.run_id, seconds=DEADLINE)
