"""Whole runs over nodes that die, fall sick and are drained: the real controllers of runs and nodes, over a store and a cluster in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from simulation.cluster_place import open_cluster_place
from simulation.memory_nodes import Rows
from simulation.test_kubernetes_runs import DEADLINE_SECONDS, RUN, Whole, running

from abruzzi.contracts.node import NodeState, NodeWord
from abruzzi.contracts.states import AttemptState, Cause, RunState
from abruzzi_operators.kubernetes.resources import LEASES, NAMESPACES, NODES, PODS, Object
from abruzzi_operators.nodes.controller import NodeController

LEASE_NAMESPACE = "kube-node-lease"


class ThreeNodes:
    """The first takes what comes."""

    def __init__(self, whole: Whole, nodes: NodeController, rows: Rows) -> None:
        self.whole, self.nodes, self.rows = whole, nodes, rows

    def say(self, name: str, *conditions: Object, ready: str = "True") -> None:
        status = {"conditions": [{"type": "Ready", "status": ready, "message": "Kubelet stopped."}, *conditions]}
        self.whole.cluster.api.put_status(NODES, name, status)

    async def node_of(self, number: int) -> str:
        [pod] = await self.whole.cluster.pods(f"{RUN}-work-{number}")
        return pod["spec"]["nodeName"]

    async def until(self, name: str, state: NodeState) -> None:
        await self.whole.until(lambda: name in self.rows.rows and self.rows.rows[name].state is state)

    async def until_no_pods(self) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while await self.whole.cluster.api.list(PODS):
                await asyncio.sleep(0.01)

    async def until_schedulable(self, name: str) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (await self.whole.cluster.api.get(NODES, name))["spec"].get("unschedulable"):
                await asyncio.sleep(0.01)

    async def until_leased(self) -> None:
        """Both controllers look after things."""
        await self.whole.until_runs()
        await self.whole.until(lambda: self.nodes.word("node-1").is_well)


@pytest.fixture
async def three_nodes(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ThreeNodes]:
    monkeypatch.setattr("abruzzi_operators.nodes.listening.REJOIN_SECONDS", 0.0)
    monkeypatch.setattr("abruzzi_operators.nodes.controller.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("abruzzi_operators.nodes.controller.REMEMBER_SECONDS", 0.05)
    async with open_cluster_place() as place:
        whole, rows, api = Whole(place), Rows(), place.cluster.api
        place.cluster.nodes = ("node-1", "node-2", "node-3")
        await api.create(NAMESPACES, NAMESPACES.new(LEASE_NAMESPACE))
        nodes = NodeController(
            api, rows.of("one"), now=lambda: datetime.now(UTC), ticks=asyncio.get_running_loop().time
        )
        nodes.tell = place.executor.look_at
        place.words = Spoken(nodes)
        made = ThreeNodes(whole, nodes, rows)
        for name in place.cluster.nodes:
            await api.create(NODES, NODES.new(name, spec={}))
            made.say(name)
            await api.create(LEASES, LEASES.new(name, LEASE_NAMESPACE, spec={"renewTime": "0"}))
        task = asyncio.create_task(nodes.run(place.executor.placed))
        async with _cancelled(task), running(whole.controller(place.executor)):
            await made.until_leased()
            yield made


class Spoken(dict):  # type: ignore[type-arg]
    """What the node controller says, where a test would write it down."""

    def __init__(self, nodes: NodeController) -> None:
        super().__init__()
        self._nodes = nodes

    def get(self, node: str, default: object = None) -> object:
        return self._nodes.word(node)


@asynccontextmanager
async def _cancelled(task: asyncio.Task[None]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def ends_on_another_node(three_nodes: ThreeNodes) -> None:
    whole = three_nodes.whole
    await whole.until_runs(2)
    assert await three_nodes.node_of(2) == "node-2"
    whole.finish(2)
    await whole.until_ended()
    assert whole.run.state is RunState.SUCCEEDED
    assert whole.starts() == ["1", "2"]
    await three_nodes.until_no_pods()  # the garbage collector may come after the engine's last look


async def test_a_node_that_dies_costs_one_attempt_and_its_pods_go_without_its_kubelet(three_nodes: ThreeNodes) -> None:
    assert await three_nodes.node_of(1) == "node-1"
    three_nodes.whole.cluster.dead_nodes.add("node-1")
    three_nodes.say("node-1", ready="Unknown")
    await ends_on_another_node(three_nodes)
    first = three_nodes.whole.attempts[0]
    assert (first.state, first.cause, first.node) == (AttemptState.FAILED, Cause.NODE, "node-1")
    assert "Kubernetes does not hear its kubelet" in str(first.reason)
    await three_nodes.until("node-1", NodeState.LOST)


async def test_a_sick_node_lets_its_stage_save_and_is_left_for_good(three_nodes: ThreeNodes) -> None:
    three_nodes.say(
        "node-1", {"type": "GpuXidError", "status": "True", "message": "NVRM: Xid (PCI:0000:cb:00): 79, gone"}
    )
    await ends_on_another_node(three_nodes)
    first = three_nodes.whole.attempts[0]
    assert (first.state, first.cause, first.exit_code, first.node) == (
        AttemptState.INTERRUPTED,
        Cause.NODE,
        143,
        "node-1",
    )
    assert "Xid" in str(first.reason)
    await three_nodes.until("node-1", NodeState.QUARANTINED)


async def test_a_drain_lets_the_stage_save_and_is_done_when_it_has_left(three_nodes: ThreeNodes) -> None:
    three_nodes.rows.drains["node-1"] = NodeWord(reason="a fan", by="admin:ann", at=datetime.now(UTC))
    await ends_on_another_node(three_nodes)
    first = three_nodes.whole.attempts[0]
    assert (first.state, first.cause, first.exit_code) == (AttemptState.INTERRUPTED, Cause.PREEMPTION, 143)
    await three_nodes.until("node-1", NodeState.DRAINED)
    del three_nodes.rows.drains["node-1"]
    await three_nodes.until("node-1", NodeState.READY)
    await three_nodes.until_schedulable("node-1")  # the row is written before the mark is taken off
