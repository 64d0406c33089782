"""`Run` objects of a cluster: submitted once, mirrored, refused with the reason, cancelled by a field or by deletion. The database is real."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from run_objects import ONE_STAGE, Objects, condition, namespace, run
from simulation.fake_api import FakeApi

from abruzzi.contracts.metric import Heartbeat
from abruzzi.contracts.pool import PoolSpec
from abruzzi.identity import service as identity
from abruzzi.kit.db import transaction
from abruzzi.pools import service as pools
from abruzzi.runs import heartbeat, steer
from abruzzi.runs.listing import list_runs
from abruzzi_operators.controller.runs import SETTLED_SECONDS, VOLATILE_SECONDS
from abruzzi_operators.kubernetes.errors import Unreachable
from abruzzi_operators.kubernetes.resources import NAMESPACES, RUNS, Object


@pytest.fixture
async def api() -> FakeApi:
    made = FakeApi()
    await made.create(NAMESPACES, namespace("ml"))
    return made


@pytest.fixture
async def objects(api: FakeApi, world) -> AsyncIterator[Objects]:
    async with Objects(api, world, url="https://abruzzi.example.org") as made:
        yield made


async def all_runs(world) -> list[str]:
    async with transaction(world.sessions) as session:
        return [summary.id for summary, _ in await list_runs(session, now=world.clock.now())]


async def audited(world) -> list[tuple[str, str]]:
    async with transaction(world.sessions) as session:
        return [(entry.actor, entry.action) for entry in reversed(await identity.list_audit(session))]


async def test_two_controllers_submit_an_object_once_and_its_status_follows_the_run(api, world, objects) -> None:
    await api.create(RUNS, run(set={"stage.only.seed": "7"}))
    async with Objects(api, world) as other:
        await other.until_phase("Pending")
        thing = await objects.until_phase("Pending")
        [run_id] = await all_runs(world)
        assert thing["status"]["runId"] == run_id
        assert condition(thing, "Accepted") == ("True", "Accepted", f"Run {run_id} of project 'default'.")
        assert (await world.get(run_id)).name == "first"
        assert (await world.get(run_id)).detail[0].config["seed"] == 7
        await world.steps(run_id)
        thing = await objects.until_phase("Running")
        assert thing["status"]["stages"] == [{"name": "only", "kind": "container", "state": "running", "reason": "Silent", "attempts": 1}]  # fmt: skip
        assert (thing["status"]["stage"], condition(thing, "Running")[:2]) == ("only", ("True", "Silent"))
        await world.end(f"{run_id}-only-1")
        thing = await objects.until_phase("Succeeded")
    assert thing["status"]["progress"] == "100%"
    assert {c["type"]: c["status"] for c in thing["status"]["conditions"]} == {"Accepted": "True", "Running": "False", "Succeeded": "True", "Failed": "False"}  # fmt: skip
    assert condition(thing, "Succeeded")[2].startswith("Its stage succeeded")
    assert await audited(world) == [("kubernetes:ml/first", "submit runs.abruzzi.io")]


async def test_a_bad_recipe_is_refused_with_line_key_and_remedy_and_leaves_nothing(api, world, objects) -> None:
    await api.create(RUNS, run(recipe=ONE_STAGE.replace("command", "comand")))
    thing = await objects.until_phase("Refused")
    status, reason, message = condition(thing, "Accepted")
    assert (status, reason) == ("False", "RecipeInvalid")
    assert "recipe.toml:8:1: stage.only.container.comand: unknown key 'comand'. Did you mean 'command'?" in message
    assert condition(thing, "Failed")[0] == "True"
    assert await all_runs(world) == []


async def test_a_namespace_without_the_label_submits_nothing_until_an_administrator_sets_it(
    api, world, objects
) -> None:
    await api.create(NAMESPACES, namespace("other", None))
    await api.create(RUNS, run(where="other"))
    thing = await objects.until_phase("Refused", where="other")
    assert condition(thing, "Accepted")[1:] == (
        "NamespaceNotAllowed",
        "Namespace 'other' may not submit runs. An administrator of the cluster allows it: `kubectl label namespace other abruzzi.io/project=PROJECT`.",
    )
    assert await all_runs(world) == []
    await api.patch(NAMESPACES, "other", {"metadata": {"labels": {"abruzzi.io/project": "default"}}})
    thing = await objects.until_phase("Pending", where="other")
    assert condition(thing, "Accepted")[0] == "True"


async def test_the_label_decides_about_the_project_and_not_the_object(api, world, objects) -> None:
    await api.create(RUNS, run("theirs", project="rivals"))
    thing = await objects.until_phase("Refused", "theirs")
    assert condition(thing, "Accepted")[1:] == (
        "ProjectNotAllowed",
        "Namespace 'ml' submits to project 'default', not to 'rivals'. Leave spec.project out, or use a namespace of that project.",
    )
    await api.create(NAMESPACES, namespace("typo", "defualt"))
    await api.create(RUNS, run(where="typo"))
    thing = await objects.until_phase("Refused", where="typo")
    assert condition(thing, "Accepted")[1] == "UnknownProject"
    assert "Did you mean 'default'?" in condition(thing, "Accepted")[2]
    assert await all_runs(world) == []


async def test_namespaces_of_another_platform_are_left_alone(api, world) -> None:
    await api.create(NAMESPACES, namespace("theirs", **{"abruzzi.io/platform": "beta"}))
    await api.create(RUNS, run(where="theirs"))
    await api.create(RUNS, run())
    async with Objects(api, world) as alpha:
        await alpha.until_phase("Pending")
        assert "status" not in await alpha.get(where="theirs")
    async with Objects(api, world, platform="beta") as beta:
        await beta.until_phase("Pending", where="theirs")


async def test_cancel_in_the_spec_asks_for_the_end_once(api, world, objects) -> None:
    await api.create(RUNS, run())
    run_id = (await objects.until_phase("Pending"))["status"]["runId"]
    await world.steps(run_id)
    await api.patch(RUNS, "first", {"spec": {"cancel": True}}, namespace="ml")
    await objects.until_phase("Cancelling")
    await objects.controller.look()
    await world.steps(run_id)
    await world.end(f"{run_id}-only-1", exit_code=143)
    thing = await objects.until_phase("Cancelled")
    assert (condition(thing, "Failed")[:2], condition(thing, "Succeeded")[0]) == (("True", "Cancelled"), "False")
    assert [action for _, action in await audited(world)] == ["submit runs.abruzzi.io", "cancel runs.abruzzi.io"]


async def test_what_is_cancelled_from_the_start_is_never_submitted(api, world, objects) -> None:
    await api.create(RUNS, run(cancel=True))
    thing = await objects.until_phase("Refused")
    assert condition(thing, "Accepted")[1:] == ("Cancelled", "It was cancelled before it was submitted.")
    assert await all_runs(world) == []


async def test_deleting_the_object_cancels_its_run_also_while_no_controller_looked(api, world) -> None:
    await api.create(RUNS, run())
    async with Objects(api, world) as objects:
        run_id = (await objects.until_phase("Pending"))["status"]["runId"]
        assert "finalizers" not in (await objects.get())["metadata"]
    await api.delete(RUNS, "first", namespace="ml")
    await api.create(RUNS, run())  # of the same name, another run
    async with Objects(api, world) as objects:
        await objects.until_state(run_id, "cancelling")
        await objects.until_phase("Pending")
        assert [one.run_id for one in (await objects.open()).values() if one.state == "pending"] != [run_id]
    assert len(await all_runs(world)) == 2


async def test_a_kind_that_is_gone_says_nothing_about_its_runs(api, world, objects) -> None:
    await api.create(RUNS, run())
    run_id = (await objects.until_phase("Pending"))["status"]["runId"]
    api.served.pop(RUNS.full_name)
    api.forget_silently(RUNS, "first", "ml")
    assert not await objects.controller._is_gone("another-uid", next(iter((await objects.open()).values())))
    await objects.controller.look()
    assert (await world.get(run_id)).state == "pending"


async def test_an_apiserver_that_does_not_answer_says_nothing_about_runs_whose_object_is_missing(api, world) -> None:
    await api.create(RUNS, run())
    async with Objects(api, world) as objects:
        run_id = (await objects.until_phase("Pending"))["status"]["runId"]
    await api.delete(RUNS, "first", namespace="ml")
    async with Objects(api, world) as objects:

        async def away(*_: object, **__: object) -> None:
            raise Unreachable("away", reason="ConnectError")

        answers, api.get = api.get, away
        await objects.controller.look()
        assert (await world.get(run_id)).state == "pending"
        api.get = answers
        await objects.until_state(run_id, "cancelling")


async def test_a_status_that_a_restored_etcd_has_lost_finds_its_run_again(api, world, objects) -> None:
    await api.create(RUNS, run())
    earlier = api.snapshot()
    run_id = (await objects.until_phase("Pending"))["status"]["runId"]
    api.restore(earlier)
    assert "status" not in await objects.get()

    def holds(thing: Object) -> bool:
        world.clock.turn(VOLATILE_SECONDS)  # a version that is older than our own write is believed after a while
        return thing.get("status", {}).get("runId") == run_id

    await objects.until(holds)
    assert await all_runs(world) == [run_id]


async def test_a_run_that_the_database_does_not_know_is_not_run_again(api, world, objects) -> None:
    await api.create(RUNS, run())
    api.put_status(RUNS, "first", {"runId": "zzzzzzzzzz", "phase": "Running"}, namespace="ml")
    thing = await objects.until_phase("Refused")
    assert condition(thing, "Accepted")[1] == "RunLost"
    assert await all_runs(world) == []


async def test_progress_alone_is_written_now_and_then_and_never_twice(api, world, objects) -> None:
    await api.create(RUNS, run())
    run_id = (await objects.until_phase("Pending"))["status"]["runId"]
    await world.steps(run_id)
    await objects.until_phase("Running")
    written = api.calls["patch", "runs"]

    async def looked(step: int) -> str:
        beat = Heartbeat(rank=0, step=step, total_steps=10, phase="work", at=world.clock.now().timestamp())
        await world.do(heartbeat.record, f"{run_id}-only-1", beat)
        for _ in range(10):
            await objects.controller.look()
        return (await objects.get())["status"].get("progress", "")

    assert (await looked(1), api.calls["patch", "runs"]) == ("0%", written)
    world.clock.turn(VOLATILE_SECONDS)
    await objects.until(lambda thing: thing["status"].get("progress") == "10%")
    written = api.calls["patch", "runs"]
    assert (await looked(2), api.calls["patch", "runs"]) == ("10%", written)
    world.clock.turn(VOLATILE_SECONDS)
    assert (await looked(3), api.calls["patch", "runs"]) == ("30%", written + 1)


async def test_an_ended_run_that_somebody_retries_moves_again(api, world, objects) -> None:
    await api.create(RUNS, run())
    run_id = (await objects.until_phase("Pending"))["status"]["runId"]
    await world.steps(run_id)
    await world.end(f"{run_id}-only-1", exit_code=64)
    thing = await objects.until_phase("Failed")
    assert condition(thing, "Failed")[:2] == ("True", "Failed")
    await world.do(steer.retry, run_id, None)
    world.clock.turn(SETTLED_SECONDS)
    thing = await objects.until_phase("Pending")
    assert condition(thing, "Failed")[0] == "False"


async def test_what_was_refused_for_a_pool_is_accepted_once_there_is_one(api, world, objects) -> None:
    await api.create(RUNS, run(set={"stage.only.resources.pool": "h800"}))
    thing = await objects.until_phase("Refused")
    assert "h800" in condition(thing, "Accepted")[2]
    async with transaction(world.sessions) as session:
        await pools.apply(
            session, PoolSpec(name="h800", kind="kubernetes"), expected_version=None, actor="me", now=world.clock.now()
        )
    world.clock.turn(SETTLED_SECONDS)
    await objects.until_phase("Pending")


async def test_one_object_that_cannot_be_written_does_not_keep_the_others(api, world, objects) -> None:
    def refuse(verb, resource, new, old) -> str | None:
        return "not this one" if resource is RUNS and verb == "update" and new["metadata"]["name"] == "first" else None

    api.admission.append(refuse)
    await api.create(RUNS, run())
    await api.create(RUNS, run("second"))
    await objects.until_phase("Pending", "second")
    assert len(await all_runs(world)) == 2
    api.admission.clear()
    await objects.until_phase("Pending")


async def test_a_cluster_that_is_away_cancels_nothing(api, world, objects) -> None:
    await api.create(RUNS, run())
    run_id = (await objects.until_phase("Pending"))["status"]["runId"]
    api.fail(Unreachable("away", reason="ConnectError"))
    await objects.controller.look()
    assert (await world.get(run_id)).state == "pending"
