"""The keeper of sandbox pods over a fake apiserver: how many are ready, who gets one, what is destroyed, and when it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from local_execs import LocalExecs
from sandbox_service import NAMESPACE, PATIENCE, PodsThatRun

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.sandbox import SandboxIn
from abruzzi.kit.settings import SandboxPods
from abruzzi_operators.kubernetes.errors import Unreachable
from abruzzi_operators.kubernetes.resources import NAMESPACES, PODS, Object
from abruzzi_operators.sandboxes.keeper import Keeper, Patience
from abruzzi_operators.sandboxes.pod import LABEL_KEEPER, sandbox_pod, taken_away

SETTINGS = SandboxPods(image="stages", ready=2, most=3)
OWNER = {"metadata": {"name": "service-1", "uid": "u-1"}}


class World:
    def __init__(self, settings: SandboxPods = SETTINGS, patience: Patience = PATIENCE) -> None:
        self.now = 0.0
        self.settings = settings
        self.api = PodsThatRun()
        self.execs = LocalExecs(self.api)
        self.keeper = Keeper(
            self.api, self.execs, settings, namespace=NAMESPACE, name="here", places=(), patience=replace(patience, take=0.3),
            clock=lambda: self.now,
        )  # fmt: skip

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        await self.api.create(NAMESPACES, NAMESPACES.new(NAMESPACE))
        task = asyncio.create_task(self.keeper.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def pods(self) -> set[str]:
        return {pod["metadata"]["name"] for pod in await self.api.list(PODS, namespace=NAMESPACE)}

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(240):
            while not condition():
                self.now += 1.0
                await asyncio.sleep(0.001)

    async def gone(self, names: set[str]) -> None:
        async with asyncio.timeout(240):
            while names & await self.pods():
                self.now += 1.0
                await asyncio.sleep(0.001)


async def test_as_many_as_are_wanted_are_ready_and_one_that_is_taken_is_replaced() -> None:
    world = World()
    async with world.running():
        await world.until(lambda: world.keeper.ready == 2)
        taken = await world.keeper.take("a")
        await world.until(lambda: world.keeper.ready == 2)
        assert taken in await world.pods()
        assert len(await world.pods()) == 3
    assert await world.pods() == set(), "what it has made it also ends"


async def test_who_asks_for_more_than_there_may_be_waits_until_another_gives_one_back_or_hears_how_many_are_in_use() -> (
    None
):
    world = World()
    async with world.running():
        taken = [await world.keeper.take("a") for _ in range(3)]
        with pytest.raises(AbruzziError, match="3 of 3 sandboxes are in use") as told:
            await world.keeper.take("a")
        assert told.value.code == "no_sandbox"
        waiting = asyncio.create_task(world.keeper.take("a"))
        await world.keeper.destroy(taken[0])
        assert await waiting not in taken


async def test_an_attempt_that_has_all_it_may_have_waits_for_its_own_while_another_gets_one() -> None:
    world = World(SETTINGS.model_copy(update={"per_attempt": 1, "ready": 3, "most": 6}))
    async with world.running():
        await world.until(lambda: world.keeper.ready == 3)
        first = await world.keeper.take("a")
        with pytest.raises(
            AbruzziError, match=r"a has 1 of the 1 that an attempt may have \(sandboxes\.pods\.per_attempt"
        ):
            await world.keeper.take("a")
        waiting = asyncio.create_task(world.keeper.take("a"))
        assert await world.keeper.take("b") != first
        assert not waiting.done()
        await world.keeper.destroy(first)
        assert await waiting != first


async def test_a_pod_from_an_image_of_its_own_is_started_for_who_asks_and_those_that_are_ready_make_room() -> None:
    world = World(SETTINGS.model_copy(update={"images": ("registry/eval/",), "per_attempt": 3}))
    wanted = SandboxIn(image="registry/eval/one:1", folder="/testbed")
    async with world.running():
        await world.until(lambda: world.keeper.ready == 2)
        name = ""
        for taken in range(1, 4):
            name = await world.keeper.take("a", wanted)
            assert world.keeper.taken == taken
            assert world.keeper.taken + world.keeper.ready <= SETTINGS.most
        spec = (await world.api.get(PODS, name, namespace=NAMESPACE))["spec"]
        [copy], [box] = spec["initContainers"], spec["containers"]
        assert copy["image"] == box["image"] == "registry/eval/one:1"
        assert copy["command"] == ["cp", "-a", "/testbed/.", "/abruzzi-copy/own"]
        assert copy["securityContext"] == box["securityContext"], "it has no more rights"
        assert {"name": "folder", "mountPath": "/testbed", "subPath": "own"} in box["volumeMounts"]
        with pytest.raises(AbruzziError, match="a has 3 of the 3 that an attempt may have"):
            await world.keeper.take("a", wanted)


async def test_an_image_that_cannot_be_pulled_is_told_at_once_and_gives_its_place_back() -> None:
    world = World(SETTINGS.model_copy(update={"images": ("registry/eval",), "ready": 0, "per_attempt": 1}))
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "not there"}}}
    world.api.status = {"phase": "Pending", "initContainerStatuses": [waiting]}
    async with world.running():
        with pytest.raises(AbruzziError, match="does not run: ImagePullBackOff: not there"):
            await world.keeper.take("a", SandboxIn(image="registry/eval:1", folder="/testbed"))
        world.api.status = {"phase": "Running"}
        assert await world.keeper.take("a", SandboxIn(image="registry/eval:2"))


@pytest.mark.parametrize(
    ("image", "allowed"),
    [
        ("registry/eval/one", True),
        ("registry/eval/one/more:2@sha256:00", True),
        ("registry/evaluator", False),
        ("registry/evaluator/one", False),
        ("registry:5000/one:1", True),
        ("registry:5000/one@sha256:00", True),
        ("registry:5000/one2:1", False),
        ("one", False),
    ],
)
async def test_images_are_taken_by_their_repository_or_by_what_they_lie_below(image: str, allowed: bool) -> None:
    world = World(SETTINGS.model_copy(update={"images": ("registry/eval/", "registry:5000/one")}))
    assert world.settings.allows(image) == allowed
    assert not SETTINGS.allows(image), "none by default"
    if not allowed:
        with pytest.raises(AbruzziError, match="is none that stages may name"):
            await world.keeper.take("a", SandboxIn(image=image))


async def test_a_pod_that_did_not_come_is_not_counted_as_the_attempts() -> None:
    world = World(SETTINGS.model_copy(update={"per_attempt": 1, "most": 1, "ready": 0, "images": ("eval",)}))
    wanted = SandboxIn(image="eval:1")
    async with world.running():
        first = await world.keeper.take("b", wanted)
        with pytest.raises(AbruzziError, match="1 of 1 sandboxes are in use"):
            await world.keeper.take("a", wanted)
        await world.keeper.destroy(first)
        assert await world.keeper.take("a", wanted) != first


async def test_a_pod_of_its_label_that_it_does_not_know_is_destroyed_and_anothers_is_not() -> None:
    world = World()
    await world.api.create(NAMESPACES, NAMESPACES.new(NAMESPACE))
    for keeper in ("here", "there"):
        await world.api.create(PODS, pod(name=f"left-{keeper}", keeper=keeper))
    task = asyncio.create_task(world.keeper.run())
    await world.until(lambda: world.keeper.ready == 2)
    assert {name for name in await world.pods() if name.startswith("left")} == {"left-there"}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_deletion_that_fails_is_tried_again() -> None:
    world = World(SETTINGS.model_copy(update={"ready": 0}))
    async with world.running():
        taken = await world.keeper.take("a")
        tried, delete = asyncio.Event(), world.api.delete

        async def refuse(*_, **__) -> None:
            tried.set()
            raise Unreachable("away", reason="ReadError")

        world.api.delete = refuse  # type: ignore[method-assign]
        await world.keeper.destroy(taken)
        await tried.wait()
        assert taken in await world.pods()
        world.api.delete = delete  # type: ignore[method-assign]
        await world.gone({taken})
        assert taken not in await world.pods()


async def test_a_pod_that_reaches_something_is_given_to_nobody() -> None:
    world = World()
    world.execs.reached = ["169.254.169.254:80", "a token of the cluster"]
    async with world.running():
        await world.until(lambda: bool(world.keeper.fault))
        with pytest.raises(
            AbruzziError, match=r"reaches 169\.254\.169\.254:80, a token of the cluster: no untrusted program is run"
        ):
            await world.keeper.take("a")
        world.execs.reached = []
        await world.until(lambda: world.keeper.ready == 2)
        assert world.keeper.fault == "", "the network was mended"


async def test_a_network_that_fails_for_a_moment_is_not_taken_for_one_that_is_shut() -> None:
    world = World(SETTINGS.model_copy(update={"ready": 1}), replace(PATIENCE, network=1000.0, silent=200.0))
    world.execs.reached = ["10.0.0.1:6443"]
    async with world.running():
        await world.until(lambda: world.execs.looks > 3)
        world.execs.reached, looks = [], world.execs.looks
        await world.until(lambda: world.execs.looks > looks + 1)
        world.execs.reached = ["10.0.0.1:6443"]
        await world.until(lambda: bool(world.keeper.fault) or world.keeper.ready > 0)
        assert world.keeper.ready == 0
        assert "reaches 10.0.0.1:6443" in world.keeper.fault


async def test_a_look_that_takes_long_is_no_lasting_silence() -> None:
    world = World(SETTINGS.model_copy(update={"ready": 1, "lifetime_seconds": 3600}), replace(PATIENCE, silent=100.0))
    look = world.execs.open

    def slow(*asked):
        world.now += 200.0
        return look(*asked)

    world.execs.open = slow  # type: ignore[method-assign]
    async with world.running():
        await world.until(lambda: world.keeper.ready == 1)
        assert world.execs.looks == 2


async def test_where_a_pod_has_reached_something_the_next_one_has_to_be_silent_for_longer() -> None:
    world = World(
        SETTINGS.model_copy(update={"ready": 1, "lifetime_seconds": 3600}),
        replace(PATIENCE, network=1000.0, silent=100.0),
    )

    async def silent_for() -> float:
        world.execs.reached, since = [], world.now
        await world.until(lambda: world.keeper.ready == 1)
        return world.now - since

    async with world.running():
        assert 100.0 <= await silent_for() < 1000.0
        world.execs.reached = ["10.0.0.1:6443"]
        await world.keeper.destroy(await world.keeper.take("a"))
        await world.until(lambda: bool(world.keeper.fault))
        assert await silent_for() >= 1000.0
        await world.keeper.destroy(await world.keeper.take("a"))
        assert 100.0 <= await silent_for() < 1000.0, "it was mended"


async def test_a_pod_without_a_network_is_ready_at_once() -> None:
    world = World(SETTINGS.model_copy(update={"ready": 1}), replace(PATIENCE, silent=1e9))
    world.execs.network = False
    async with world.running():
        await world.until(lambda: world.keeper.ready == 1)
        assert world.execs.looks == 1


async def test_a_pod_that_cannot_run_is_told_in_the_clusters_words() -> None:
    world = World()
    waiting = {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}
    world.api.status = {"phase": "Failed", "containerStatuses": [waiting]}
    async with world.running():
        await world.until(lambda: bool(world.keeper.fault))
    assert world.keeper.fault == "A sandbox pod does not run: ErrImagePull: no such image"


async def test_one_that_nobody_took_for_half_of_its_life_is_replaced() -> None:
    world = World()
    async with world.running():
        await world.until(lambda: world.keeper.ready == 2)
        before = await world.pods()
        world.now += SETTINGS.lifetime_seconds
        await world.gone(before)
        await world.until(lambda: world.keeper.ready == 2)
        assert before.isdisjoint(await world.pods())


def pod(**changes) -> Object:
    given = {"name": "box-1", "namespace": NAMESPACE, "keeper": "here", "user": 1_234_567, "owner": OWNER} | changes
    return sandbox_pod(SETTINGS, **given)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ({"phase": "Running"}, ""),
        ({"phase": "Succeeded"}, ""),
        ({"phase": "Failed"}, ""),
        ({"phase": "Failed", "reason": "DeadlineExceeded", "message": "Pod was active on the node longer"}, ""),
        ({"phase": "Failed", "reason": "Evicted", "message": "Container box exceeded its local ephemeral storage limit"}, ""),
        ({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"reason": "OOMKilled"}}}]}, ""),
        ({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}, "Evicted: The node was low on resource: memory."),
        ({"phase": "Failed", "reason": "Terminated", "message": "Pod was terminated in response to imminent node shutdown."},
         "Terminated: Pod was terminated in response to imminent node shutdown."),
    ],
)  # fmt: skip
def test_a_pod_is_taken_away_where_neither_its_program_nor_its_limits_ended_it(status: Object, why: str) -> None:
    assert taken_away(pod() | {"status": status}) == why
    deleted = pod() | {"status": status}
    deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert taken_away(deleted) == "somebody deleted it"


def test_a_sandbox_has_no_token_no_names_no_rights_a_user_of_its_own_and_an_end() -> None:
    made = pod()
    spec, [container] = made["spec"], made["spec"]["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert (spec["dnsPolicy"], spec["enableServiceLinks"]) == ("None", False)
    assert spec["activeDeadlineSeconds"] == SETTINGS.lifetime_seconds
    assert spec["securityContext"]["runAsUser"] == 1_234_567
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert set(container["resources"]["limits"]) == {"cpu", "memory", "ephemeral-storage"}
    assert spec["runtimeClassName"] == "gvisor"
    assert made["metadata"]["labels"][LABEL_KEEPER] == "here"
    assert made["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": "service-1", "uid": "u-1"}
    ]
