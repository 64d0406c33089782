"""Making runs: submit, and branch from a checkpoint of another run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.artifacts import service as artifacts
from abruzzi.contracts.errors import Conflict, NotFound
from abruzzi.contracts.graph import ancestors, bind_inputs
from abruzzi.contracts.pool import LOCAL
from abruzzi.contracts.recipe import Recipe, StageBase, TrainingStage
from abruzzi.contracts.resources import ArtifactOut, RunOut
from abruzzi.contracts.states import ArtifactKind, RunState, StageState
from abruzzi.contracts.toml import load_recipe, parse_recipe, with_overrides
from abruzzi.events import service as events
from abruzzi.kit.ids import new_run_id
from abruzzi.pools import service as pools
from abruzzi.recipes import service as recipes
from abruzzi.runs import query
from abruzzi.runs.facts import numeric_facts
from abruzzi.runs.models import RunRow, StageRow
from abruzzi.runs.outputs import run_out
from abruzzi.store import ObjectStore, pin_artifact

_NOT_CONTENT = ("resources", "retry", "gate")
"""Keys of a stage that say how it runs, not what it makes."""


async def submit(
    session: AsyncSession,
    *,
    project_id: str,
    objects: ObjectStore,
    recipe_toml: str,
    overrides: Mapping[str, str] | None = None,
    name: str | None = None,
    actor: str,
    now: datetime,
    default_pool: str = LOCAL,
    submission_key: str | None = None,
) -> RunOut:
    """The new run. A `submission_key` is claimed first (submissions.py). Retention keeps the artifacts that its recipe names.

    Raises RecipeInvalid with every mistake, AbruzziError for a pool that there is not or that can never hold a stage, NotFound or Conflict for
    an artifact that is not the project's, not there, or not what the stage needs.
    """
    recipe = load_recipe(recipe_toml, overrides)
    assigned = await pools.assign(session, recipe, default=default_pool)
    toml = with_overrides(recipe_toml, overrides)
    plain = (
        parse_recipe(recipe_toml)[0] if overrides else recipe
    )  # the library keeps the recipe itself, not each value that was tried with it
    await recipes.save(session, project_id, plain or recipe, recipe_toml if plain else toml, actor=actor, now=now)
    run = _run_row(recipe, toml, project_id, name, actor, now)
    run.submission_key = submission_key
    session.add(run)
    stages = _stage_rows(recipe, run, assigned)
    named = await _named_artifacts(session, run.project_id, stages)
    session.add_all(stages)
    for artifact in named:
        await _keep(objects, artifact, run.id)
    _announce(session, run)
    return run_out(run, stages, {}, {}, now)  # as it lies there: reading it back would be a third of the work


async def branch(
    session: AsyncSession,
    parent_id: str,
    artifact_id: str,
    *,
    objects: ObjectStore,
    recipe_toml: str | None = None,
    overrides: Mapping[str, str] | None = None,
    name: str | None = None,
    actor: str,
    now: datetime,
    default_pool: str = LOCAL,
) -> str:
    """A new run that goes on from a checkpoint. Stages before it count as done: their outputs are the parent's. Retention keeps what it stands on.

    Raises NotFound, RecipeInvalid, or Conflict when the artifact is no checkpoint that still exists, the recipe lacks its stage, or names
    an artifact that is unfit.
    """
    parent = await query.row(session, parent_id)
    artifact = await artifacts.get(session, artifact_id)
    if artifact.run_id != parent.id or artifact.kind is not ArtifactKind.CHECKPOINT:
        raise Conflict(
            f"{artifact_id} is no checkpoint of run {parent.id}.",
            hint=f"`abruzzi artifacts list {parent.id} --kind checkpoint`",
        )
    if artifact.deleted_at is not None:
        raise Conflict(
            f"The files of {artifact.name} were removed by retention.",
            hint="Choose a newer checkpoint, or raise checkpoint.keep_last.",
        )
    if artifact.corrupt_at is not None:
        raise Conflict(
            f"{artifact.name} was found damaged.", code="corrupt_artifact", hint="Choose another checkpoint of the run."
        )
    toml = recipe_toml or parent.recipe_toml
    recipe = load_recipe(toml, overrides) if recipe_toml or overrides else Recipe.model_validate(parent.recipe)
    if artifact.stage_id not in {s.id for s in recipe.stage}:
        raise Conflict(
            f"The recipe has no stage {artifact.stage_id!r}, which made the checkpoint.", hint="Keep the stage's id."
        )
    run = _run_row(recipe, with_overrides(toml, overrides), parent.project_id, name, actor, now)
    run.parent_run_id, run.parent_artifact_id = parent.id, artifact_id
    session.add(run)
    await session.flush()
    assigned = await pools.assign(session, recipe, default=default_pool)
    done = set(ancestors(recipe, artifact.stage_id))
    made = {s.id: s for s in await query.stage_rows(session, parent.id)}
    stages = _stage_rows(recipe, run, assigned)
    for stage in stages:
        if stage.id in done:
            _refuse_changed(stage, made.get(stage.id), parent.id)
            stage.state, stage.reason = StageState.SUCCEEDED, f"Taken from run {parent.id}."
            stage.started_at = stage.ended_at = now
            stage.facts = made[stage.id].facts
        elif stage.id == artifact.stage_id:
            stage.facts = numeric_facts(artifact.meta)
    named = await _named_artifacts(session, run.project_id, [s for s in stages if s.state == StageState.WAITING])
    session.add_all(stages)
    for kept in (artifact, *named):
        await _keep(objects, kept, run.id)
    _announce(session, run)
    return run.id


async def _named_artifacts(session: AsyncSession, project_id: str, stages: Sequence[StageRow]) -> list[ArtifactOut]:
    """Inputs that are named by their ids. Raises NotFound or Conflict where one is not there, of another kind, or of another project: a
    controller, and who is a member of several, sees more than the run may read."""
    found: dict[str, ArtifactOut] = {}
    for stage in stages:
        for name, binding in stage.bindings.items():
            if "artifact_id" not in binding:
                continue
            artifact = await artifacts.get(session, binding["artifact_id"])
            if artifact.project_id != project_id:
                raise NotFound("artifact", artifact.id)
            if artifact.kind != binding["kind"] or artifact.deleted_at is not None or artifact.corrupt_at is not None:
                told = "is damaged" if artifact.corrupt_at else "was removed" if artifact.deleted_at else None
                raise Conflict(
                    f"Input {name!r} of stage {stage.id!r} must be a {binding['kind']}; artifact {artifact.id} {told or f'is a {artifact.kind}'}.",
                    code="unfit_artifact",
                    hint=f"`abruzzi artifacts list {artifact.run_id} --kind {binding['kind']}`",
                )
            found[artifact.id] = artifact
    return list(found.values())


async def _keep(objects: ObjectStore, artifact: ArtifactOut, run_id: str) -> None:
    """From retention, for the run. Raises Conflict where that was quicker."""
    try:
        await asyncio.to_thread(pin_artifact, objects, artifact.manifest_key, run_id)
    except NotFound as error:
        raise Conflict(
            f"The files of {artifact.name} are being removed by retention.",
            hint="Choose a newer checkpoint, or raise checkpoint.keep_last.",
        ) from error


def _refuse_changed(stage: StageRow, made: StageRow | None, parent_id: str) -> None:
    """A stage that is taken from the parent is what the parent made: a change of its configuration would be silently without effect."""
    if made is None:
        raise Conflict(
            f"Stage {stage.id!r} comes before the checkpoint, but run {parent_id} has no such stage.",
            code="branch_changes_past",
            hint="Branch with the stages of the parent, or submit a new run.",
        )
    ours, theirs = ({k: v for k, v in s.config.items() if k not in _NOT_CONTENT} for s in (stage, made))
    changed = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
    if changed:
        raise Conflict(
            f"Stage {stage.id!r} comes before the checkpoint and is taken from run {parent_id}, but {', '.join(changed)} differ.",
            code="branch_changes_past",
            hint="Change only the branched stage and what follows it, or submit a new run.",
        )


def _run_row(recipe: Recipe, toml: str, project_id: str, name: str | None, actor: str, now: datetime) -> RunRow:
    return RunRow(
        id=new_run_id(),
        project_id=project_id,
        name=name or recipe.name,
        recipe_name=recipe.name,
        recipe=recipe.resolved(),
        recipe_toml=toml,
        state=RunState.PENDING,
        version=1,
        headline={},
        created_by=actor,
        created_at=now,
        wake_at=now,
    )


def _stage_rows(recipe: Recipe, run: RunRow, pool_of: Mapping[str, str]) -> list[StageRow]:
    resolved = {s["id"]: s for s in run.recipe["stage"]}
    return [
        StageRow(
            run_id=run.id,
            id=stage.id,
            project_id=run.project_id,
            position=position,
            kind=stage.kind,
            state=StageState.WAITING,
            needs=list(stage.needs),
            gate=stage.gate,
            config=_on_pool(resolved[stage.id], pool_of[stage.id]),
            bindings={b.name: b.as_dict() for b in bind_inputs(recipe, stage).values()},
            world_size=stage.resources.ranks,
            elastic=_elastic(stage),
            max_attempts=stage.retry.max_attempts,
            hang_seconds=stage.retry.hang,
            facts={},
        )
        for position, stage in enumerate(recipe.stage)
    ]


def _elastic(stage: StageBase) -> dict[str, Any] | None:
    if not isinstance(stage, TrainingStage) or stage.elastic is None:
        return None
    return {
        "widths": stage.widths(),
        "narrow_after": stage.elastic.narrow_after,
        "widen_after": stage.elastic.widen_after,
    }


def _on_pool(config: dict[str, Any], pool: str) -> dict[str, Any]:
    """The run's recipe keeps what was said, its stages where that is."""
    return {**config, "resources": {**config["resources"], "pool": pool}}


def _announce(session: AsyncSession, run: RunRow) -> None:
    events.append(session, run.project_id, run.id, "run.state", {"state": run.state, "name": run.name})
    events.enqueue(session, run.project_id, "run.submitted", {"run_id": run.id})
    events.ring_all(session, run.id)
