"""The node controller on a cluster in memory: what it hears, writes and marks, and what two of them do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from simulation.fake_api import FakeApi
from simulation.memory_nodes import H800, Rows

from abruzzi.contracts.node import NodeState, NodeWord
from abruzzi.contracts.states import Cause
from abruzzi_operators.kubernetes.errors import Unreachable
from abruzzi_operators.kubernetes.resources import LEASES, NAMESPACES, NODES, Object
from abruzzi_operators.nodes.controller import EPISODE_SECONDS, LOOK_SECONDS, STALE_SECONDS, NodeController
from abruzzi_operators.nodes.judge import LOST_ALONE_SECONDS, QUARANTINE_SECONDS
from abruzzi_operators.nodes.listening import REJOIN_SECONDS
from abruzzi_operators.nodes.signals import TAINT_DRAIN, TAINT_QUARANTINE
from abruzzi_operators.nodes.witnesses import Beat

START = datetime(2026, 11, 26, tzinfo=UTC)
LEASE_NAMESPACE = "kube-node-lease"
GPUS = {"cpu": "192", "memory": "2Ti", "nvidia.com/gpu": "8"}
ATTEMPT = "0123456789-train-1"


class World:
    """A cluster with nodes whose leases are renewed, and a clock that is set by hand."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.api, self.rows, self.now, self.renewed = FakeApi(), Rows(), 0.0, 0
        self._stack = stack
        self._settled = (0, 0)
        self.alive: set[str] = set()
        self.placed: dict[str, dict[str, tuple[int, ...]]] = {}
        self.controllers: list[NodeController] = []
        self.api._create(NAMESPACES, NAMESPACES.new(LEASE_NAMESPACE))

    async def add(self, *names: str) -> None:
        for name in names:
            body = NODES.new(name, spec={})
            body["metadata"]["labels"] = {"flavor": "h800", "rack": "r1"}
            await self.api.create(NODES, body)
            self.say(name)
            await self.api.create(LEASES, LEASES.new(name, LEASE_NAMESPACE, spec={"renewTime": "0"}))
            self.alive.add(name)

    def say(self, name: str, *conditions: Object, ready: str = "True", message: str = "") -> None:
        status = {"conditions": [{"type": "Ready", "status": ready, "message": message}, *conditions]}
        self.api.put_status(NODES, name, {**status, "capacity": GPUS, "allocatable": GPUS})

    async def controller(self, owner: str = "a") -> NodeController:
        made = NodeController(
            self.api, self.rows.of(owner), now=lambda: START + timedelta(seconds=self.now), ticks=lambda: self.now
        )
        made.tell = lambda attempts: self.rows.told.extend(attempts)
        self.controllers.append(await self._stack.enter_async_context(made))
        return made

    async def seconds(self, number: float, *, renews: bool = True) -> None:
        """Looks of every controller, once a second, after their watches have told all."""
        for second in range(round(number)):
            self.now += LOOK_SECONDS
            if renews and second % 5 == 0 and self.api.down is None:
                self.renewed += 1
                for name in self.alive:
                    await self.api.patch(
                        LEASES, name, {"spec": {"renewTime": str(self.renewed)}}, namespace=LEASE_NAMESPACE
                    )
            await self.settle()
            for controller in self.controllers:
                await controller.look(self.placed)

    async def settle(self) -> None:
        """Until the caches are what the apiserver has; while that is away they can't be."""
        if self.api.down is not None:
            async with asyncio.timeout(240):
                while any(c._nodes.problem is None or c._leases.problem is None for c in self.controllers):
                    await asyncio.sleep(0.001)
            return
        if self._settled == (self.api._revision, len(self.controllers)):
            return
        self._settled = (self.api._revision, len(self.controllers))
        async with asyncio.timeout(240):
            for controller in self.controllers:
                for reflector, namespace in ((controller._nodes, None), (controller._leases, LEASE_NAMESPACE)):
                    there = {
                        (t["metadata"].get("namespace", ""), t["metadata"]["name"]): t["metadata"]["resourceVersion"]
                        for t in await self.api.list(reflector.resource, namespace=namespace)
                    }
                    while (
                        reflector.problem is not None
                        or {key: entry.resource_version for key, entry in reflector.entries.items()} != there
                    ):
                        await asyncio.sleep(0.001)

    async def node(self, name: str) -> Object:
        return await self.api.get(NODES, name)

    async def taints(self, name: str) -> set[str]:
        return {taint["key"] for taint in (await self.node(name))["spec"].get("taints") or ()}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        made = World(stack)
        await made.add("n1", "n2", "n3", "n4", "n5", "n6")
        made.placed = {"n1": {ATTEMPT: (0, 1)}, "n2": {ATTEMPT: (2, 3)}}
        yield made


JOINED = REJOIN_SECONDS + 2


async def test_rows_tell_what_nodes_are_and_are_written_again_only_when_that_changes(world: World) -> None:
    controller = await world.controller()
    await world.seconds(3)
    row = world.rows.rows["n1"]
    assert (row.pool, row.state, row.attempts, row.facts.topology) == ("h800", NodeState.READY, {ATTEMPT: (0, 1)}, {"rack": "r1"})  # fmt: skip
    assert (row.facts.gpus.total, row.facts.gpus.used) == (8, 2)
    assert world.rows.writes == 6
    assert controller.leads
    await world.seconds(20)
    assert world.rows.writes == 6
    assert controller.word("n1").is_well
    assert controller.word("never seen").lost is None


async def test_a_plug_that_is_pulled_is_noticed_by_the_lease_alone_and_told_once(world: World) -> None:
    controller = await world.controller()
    await world.seconds(JOINED)
    world.alive.discard("n2")
    await world.seconds(LOST_ALONE_SECONDS - 5)
    assert controller.word("n2").lost is None
    assert world.rows.rows["n2"].state is NodeState.SUSPECT
    await world.seconds(6)
    assert "Its lease is" in str(controller.word("n2").lost)
    assert world.rows.told == [ATTEMPT]
    assert await world.taints("n2") == {TAINT_QUARANTINE}
    assert (await world.node("n2"))["spec"]["unschedulable"]
    [fault] = world.rows.rows["n2"].faults
    assert fault.kind == "lost"


async def test_ranks_that_fall_silent_with_their_node_shorten_the_wait_and_ranks_that_speak_end_it(
    world: World,
) -> None:
    controller = await world.controller()
    await world.seconds(JOINED)
    world.alive -= {"n1", "n2"}
    world.alive.add("n2")
    world.rows.words[ATTEMPT] = {rank: Beat(START.timestamp() + world.now, 1, 1.0) for rank in range(4)}
    for second in range(14):
        world.rows.words[ATTEMPT][1] = Beat(START.timestamp() + world.now, second, 1.0)
        await world.seconds(1)
    assert controller.word("n1").lost is None
    await world.seconds(2)
    assert controller.word("n1").lost is None, "its rank spoke a moment ago"
    await world.seconds(4)
    assert "its ranks have said nothing" in str(controller.word("n1").lost)


async def test_a_watch_that_tells_nothing_is_found_out_before_anybody_is_called_lost(world: World) -> None:
    controller = await world.controller()
    await world.seconds(JOINED)
    before = dict(controller._leases._entries)
    for _ in range(60):
        world.now += 1
        if world.now % 10 == 0:
            world.renewed += 1
            for name in world.alive:
                await world.api.patch(
                    LEASES, name, {"spec": {"renewTime": str(world.renewed)}}, namespace=LEASE_NAMESPACE
                )
            await world.settle()
        # As a half-open stream: the cache stands still.
        controller._leases._entries = dict(before)
        await controller.look(world.placed)
        assert [name for name in world.alive if controller.word(name).lost] == []


@pytest.mark.parametrize("pause", [30.0, 600.0])
async def test_a_controller_that_was_stopped_calls_nobody_lost_for_what_it_missed(world: World, pause: float) -> None:
    controller = await world.controller()
    await world.seconds(JOINED)
    world.now += pause
    await controller.look(world.placed)
    assert [name for name in world.alive if controller.word(name).lost] == []
    await world.seconds(60)
    assert [name for name in world.alive if controller.word(name).lost] == []


async def test_an_apiserver_that_was_away_for_a_minute_loses_nobody(world: World) -> None:
    controller = await world.controller()
    await world.seconds(JOINED)
    world.api.fail(Unreachable("list: connection refused.", reason="ConnectError"))
    await world.seconds(60)
    assert not any(controller.word(name).lost or controller.word(name).is_well for name in world.alive)
    world.api.fail(None)
    world._settled = (0, 0)
    await world.seconds(12, renews=False)  # kubelets try again with delays of their own
    await world.seconds(60)
    assert not [name for name in world.alive if controller.word(name).lost]
    assert all(controller.word(name).is_well for name in world.alive)


async def test_kubernetes_own_verdict_counts_at_once_unless_it_is_over_by_the_time_we_ask(world: World) -> None:
    controller = await world.controller()
    await world.seconds(JOINED)
    world.say("n2", ready="Unknown", message="Kubelet stopped posting node status.")
    await world.seconds(1)
    assert "Kubelet stopped posting node status" in str(controller.word("n2").lost)
    stale = dict(controller._nodes._entries)
    world.say("n2")
    await world.settle()
    controller._words, controller._nodes._entries = {}, stale
    await controller.look(world.placed)
    assert controller.word("n2").lost is None


async def test_a_node_that_is_deleted_under_an_attempt_is_lost_and_one_without_is_forgotten_after_a_day(
    world: World,
) -> None:
    controller = await world.controller()
    await world.seconds(JOINED)
    for name in ("n2", "n3"):
        world.alive.discard(name)
        await world.api.delete(NODES, name)
        await world.api.delete(LEASES, name, namespace=LEASE_NAMESPACE)
    await world.seconds(1)
    assert controller.word("n2").lost == "Node n2 was removed from the cluster."
    assert [len(world.rows.rows[name].faults) for name in ("n2", "n3")] == [1, 0]
    del world.placed["n2"]
    world.now += 86_500
    await world.seconds(3)
    assert "n3" not in world.rows.rows


async def test_an_xid_moves_what_runs_there_once_the_node_is_marked_and_counts_once(world: World) -> None:
    controller = await world.controller()
    await world.seconds(JOINED)
    xid = {"type": "GpuXidError", "status": "True", "message": "NVRM: Xid (PCI:0000:cb:00): 79, gone"}
    world.say("n1", xid)
    await world.seconds(1)
    assert controller.word("n1").leave is None
    await world.seconds(1)
    leave = controller.word("n1").leave
    assert leave is not None
    assert (leave.cause, leave.node) == (Cause.NODE, "n1")
    assert controller.word("n1").lost is None
    await world.seconds(120)
    assert len(world.rows.rows["n1"].faults) == 1
    world.say("n1")
    await world.seconds(2)
    assert controller.word("n1").leave is None
    assert world.rows.rows["n1"].state is NodeState.QUARANTINED
    world.now += QUARANTINE_SECONDS
    await world.seconds(3)
    assert world.rows.rows["n1"].state is NodeState.READY
    assert await world.taints("n1") == set()


async def test_the_third_fault_makes_a_lemon_that_only_people_return(world: World) -> None:
    await world.controller()
    await world.seconds(JOINED)
    for _ in range(3):
        world.say("n3", {"type": "KernelDeadlock", "status": "True", "message": "blocked"})
        await world.seconds(3)
        world.say("n3")
        world.now += max(QUARANTINE_SECONDS, EPISODE_SECONDS) + 60
        await world.seconds(5)
    row = world.rows.rows["n3"]
    assert (len(row.faults), row.state) == (3, NodeState.QUARANTINED)
    assert "A lemon" in row.reason
    world.rows.forgiven["n3"] = START + timedelta(seconds=world.now)
    await world.seconds(4)
    assert world.rows.rows["n3"].state is NodeState.READY
    assert await world.taints("n3") == set()


async def test_a_drain_cordons_moves_what_is_there_and_a_return_takes_only_our_marks_away(world: World) -> None:
    controller = await world.controller()
    theirs = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
    await world.api.patch(NODES, "n1", {"spec": {"taints": [theirs]}})
    await world.seconds(3)
    world.rows.drains["n1"] = NodeWord(reason="a fan", by="admin:ann", at=START)
    await world.seconds(4)
    leave = controller.word("n1").leave
    assert leave is not None
    assert (leave.cause, leave.reason) == (Cause.PREEMPTION, "Node n1 is being drained: a fan.")
    assert world.rows.rows["n1"].state is NodeState.DRAINING
    assert await world.taints("n1") == {"nvidia.com/gpu", TAINT_DRAIN}
    del world.placed["n1"]
    await world.seconds(1)
    assert world.rows.rows["n1"].state is NodeState.DRAINED
    del world.rows.drains["n1"]
    await world.seconds(4)
    node = await world.node("n1")
    assert node["spec"] == {"taints": [theirs]}
    assert not node["metadata"].get("annotations")
    assert world.rows.rows["n1"].state is NodeState.READY


async def test_a_node_of_others_in_the_same_cluster_is_told_and_never_marked(world: World) -> None:
    world.rows.pools = [H800]
    await world.api.patch(NODES, "n6", {"metadata": {"labels": {"flavor": "web"}}})
    await world.controller()
    await world.seconds(3)
    for name in ("n5", "n6"):
        world.say(name, {"type": "KernelDeadlock", "status": "True", "message": "blocked"})
    await world.seconds(3)
    assert [await world.taints(name) for name in ("n5", "n6")] == [{TAINT_QUARANTINE}, set()]
    assert (world.rows.rows["n6"].pool, world.rows.rows["n6"].state) == (None, NodeState.QUARANTINED)


async def test_of_two_controllers_one_writes_and_both_know(world: World) -> None:
    first, second = await world.controller("a"), await world.controller("b")
    await world.seconds(JOINED)
    world.say("n2", ready="Unknown", message="Kubelet stopped.")
    await world.seconds(4)
    assert (first.leads, second.leads) == (True, False)
    assert [str(each.word("n2").lost) for each in (first, second)] == ["Node n2 does not answer: Kubernetes does not hear its kubelet: Kubelet stopped."] * 2  # fmt: skip
    assert len(world.rows.rows["n2"].faults) == 1
    world.rows.leader = "b"
    await world.seconds(12)
    assert (first.leads, second.leads) == (False, True)
    assert len(world.rows.rows["n2"].faults) == 1, "the same episode, whoever looks"


async def test_a_controller_that_cannot_look_says_nothing_any_more(world: World) -> None:
    controller = await world.controller()
    await world.seconds(JOINED)
    world.say("n2", ready="Unknown")
    await world.seconds(1)
    assert controller.word("n2").lost
    world.now += STALE_SECONDS + 1
    assert controller.word("n2").lost is None
    assert not controller.word("n1").is_well
    world.rows.down = RuntimeError("no database")
    world.now += 5
    with pytest.raises(RuntimeError):
        await controller.look(world.placed)
    assert controller.word("n2").lost is None


async def test_without_the_right_to_mark_nodes_the_rest_goes_on(world: World) -> None:
    def deny(verb: str, resource: Any, new: Object, old: Object | None) -> str | None:
        return "may not patch nodes" if resource is NODES and verb == "update" else None

    controller = await world.controller()
    await world.seconds(JOINED)
    world.api.admission.append(deny)
    world.rows.drains["n1"] = NodeWord(reason="a fan", by="admin:ann", at=START)
    await world.seconds(4)
    assert world.rows.rows["n1"].state is NodeState.DRAINING
    assert controller.word("n1").leave is None, "it would come back"
