"""Inputs that a recipe names as artifacts: of the own project only, by every door, kept from retention, and refused once they are damaged."""

from __future__ import annotations

import pytest
from run_objects import Objects, condition, namespace, run
from simulation.fake_api import FakeApi
from sqlalchemy import update

from abruzzi.artifacts import service as artifacts
from abruzzi.artifacts.models import ArtifactRow
from abruzzi.contracts.errors import AbruzziError, Conflict, NotFound
from abruzzi.identity import service as identity
from abruzzi.kit.db import transaction
from abruzzi.runs import submit
from abruzzi.runs.listing import list_runs
from abruzzi.runs.models import StageRow
from abruzzi.store import is_pinned
from abruzzi_operators.kubernetes.resources import NAMESPACES, RUNS

MAKES = """
version = 1
name = "makes"
[[stage]]
id = "make"
kind = "container"
[stage.container]
command = ["true"]
"""
ASKS = """
version = 1
name = "asks"

[endpoint.target]
kind = "checkpoint"
checkpoint = "artifact:{checkpoint}"
tokenizer = "artifact:{tokenizer}"

[[stage]]
id = "ask"
kind = "evaluate"
[stage.roles]
target = "target"
[stage.suites.demo]
"""
BEFORE_THAT = """
[[stage]]
id = "make"
kind = "container"
[stage.container]
command = ["true"]
"""


async def made(world, project_id: str = "default") -> tuple[str, dict[str, str]]:
    """A run that has failed after it made a checkpoint and a tokenizer. Returns its id, and theirs by kind."""
    run_id = await world.submit(MAKES, project_id=project_id)
    await world.steps(run_id)
    await world.commit(f"{run_id}-make-1", "checkpoint", "step-00000010", "ten", step=10)
    await world.commit(f"{run_id}-make-1", "tokenizer", "tokenizer", "words")
    await world.end(f"{run_id}-make-1", exit_code=64)
    async with transaction(world.sessions) as session:
        found = await artifacts.list_artifacts(session, run_id=run_id)
    return run_id, {str(a.kind): a.id for a in found}


async def theirs(world) -> dict[str, str]:
    """What another project has made."""
    async with transaction(world.sessions) as session:
        await identity.create_project(session, "theirs", "Theirs", actor="me", now=world.clock.now())
    return (await made(world, "theirs"))[1]


async def all_runs(world) -> set[str]:
    async with transaction(world.sessions) as session:
        return {summary.project_id for summary, _ in await list_runs(session, now=world.clock.now())}


async def manifest_key(world, artifact_id: str) -> str:
    async with transaction(world.sessions) as session:
        return (await artifacts.get(session, artifact_id)).manifest_key


async def mark(world, artifact_id: str, **values) -> None:
    async with transaction(world.sessions) as session:
        await session.execute(update(ArtifactRow).where(ArtifactRow.id == artifact_id).values(**values))


async def test_a_submission_that_names_another_projects_artifact_is_refused(world):
    with pytest.raises(NotFound, match="artifact"):
        await world.submit(ASKS.format(**await theirs(world)))
    assert await all_runs(world) == {"theirs"}


async def test_a_branch_that_names_another_projects_artifact_is_refused(world):
    foreign = await theirs(world)
    run_id, own = await made(world)
    with pytest.raises(NotFound, match="artifact"):
        await world.do(
            submit.branch, run_id, own["checkpoint"], recipe_toml=ASKS.format(**foreign) + BEFORE_THAT, objects=world.objects, actor="me",
        )  # fmt: skip
    child = await world.do(
        submit.branch, run_id, own["checkpoint"], recipe_toml=ASKS.format(**own) + BEFORE_THAT, objects=world.objects, actor="me",
    )  # fmt: skip
    assert (await world.get(child)).parent_run_id == run_id
    assert is_pinned(world.objects, await manifest_key(world, own["tokenizer"]))


async def test_a_branch_that_names_a_damaged_artifact_is_refused(world):
    run_id, own = await made(world)
    await mark(world, own["tokenizer"], corrupt_at=world.clock.now())
    with pytest.raises(Conflict, match="is damaged"):
        await world.do(
            submit.branch, run_id, own["checkpoint"], recipe_toml=ASKS.format(**own) + BEFORE_THAT, objects=world.objects, actor="me",
        )  # fmt: skip


async def test_a_run_object_that_names_another_projects_artifact_is_refused(world):
    foreign = await theirs(world)
    api = FakeApi()
    await api.create(NAMESPACES, namespace("ml"))
    await api.create(RUNS, run(recipe=ASKS.format(**foreign)))
    async with Objects(api, world) as objects:
        thing = await objects.until_phase("Refused")
    assert condition(thing, "Accepted")[0] == "False"
    assert foreign["checkpoint"] in condition(thing, "Accepted")[2]
    assert await all_runs(world) == {"theirs"}


async def test_a_binding_to_another_projects_artifact_is_no_input_however_it_came_there(world):
    foreign = await theirs(world)
    _, own = await made(world)
    run_id = await world.submit(ASKS.format(**own))
    async with transaction(world.sessions) as session:
        await session.execute(
            update(StageRow)
            .where(StageRow.run_id == run_id)
            .values(bindings={"target.checkpoint": {"artifact_id": foreign["checkpoint"], "kind": "checkpoint"}})
        )
    await world.steps(run_id)
    with pytest.raises(NotFound, match=foreign["checkpoint"]):
        await world.store.spec(f"{run_id}-ask-1")


async def test_artifacts_that_a_recipe_names_are_kept_from_retention_and_are_the_stages_inputs(world):
    _, own = await made(world)
    run_id = await world.submit(ASKS.format(**own))
    await world.steps(run_id)
    inputs = (await world.store.spec(f"{run_id}-ask-1")).inputs
    assert {name: ref.manifest_key for name, ref in inputs.items()} == {
        "target.checkpoint": await manifest_key(world, own["checkpoint"]),
        "target.tokenizer": await manifest_key(world, own["tokenizer"]),
    }
    assert [is_pinned(world.objects, ref.manifest_key) for ref in inputs.values()] == [True, True]


async def test_an_artifact_whose_removal_has_begun_cannot_be_named(world):
    _, own = await made(world)
    world.objects.delete(await manifest_key(world, own["checkpoint"]))
    with pytest.raises(Conflict, match="are being removed by retention"):
        await world.submit(ASKS.format(**own))


@pytest.mark.parametrize("kind", ["checkpoint", "tokenizer"])
async def test_a_named_artifact_that_is_lost_later_ends_the_attempt_and_says_which(world, kind):
    _, own = await made(world)
    run_id = await world.submit(ASKS.format(**own))
    await world.steps(run_id)
    world.objects.delete(await manifest_key(world, own[kind]))
    with pytest.raises(AbruzziError, match=rf"{own[kind]} \(.*\) was found damaged") as error:
        await world.store.spec(f"{run_id}-ask-1")
    assert (error.value.code, error.value.status) == ("corrupt_artifact", 409)


async def test_a_named_artifact_that_was_removed_is_no_input(world):
    _, own = await made(world)
    run_id = await world.submit(ASKS.format(**own))
    await world.steps(run_id)
    await mark(world, own["checkpoint"], deleted_at=world.clock.now())
    with pytest.raises(AbruzziError, match=r"step-00000010\) was removed"):
        await world.store.spec(f"{run_id}-ask-1")
