"""The resolved spec of an attempt: inputs bound to committed artifacts, the checkpoint to resume from picked and verified."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.artifacts import service as artifacts
from abruzzi.artifacts.models import ArtifactRow
from abruzzi.contracts.artifact import ArtifactRef, Manifest
from abruzzi.contracts.errors import AbruzziError, NotFound
from abruzzi.contracts.stage import StageSpec, StoreConfig, attempt_id
from abruzzi.contracts.states import ArtifactKind, AttemptState, StageKind
from abruzzi.contracts.training import with_ranks
from abruzzi.engine.actions import CreateAttempt
from abruzzi.runs import query
from abruzzi.runs.models import AttemptRow, RunRow, StageRow
from abruzzi.runs.ownership import output_prefix
from abruzzi.store import (
    CorruptArtifact,
    ObjectStore,
    Resume,
    Setback,
    checkpoint_after_divergences,
    data_to_pass_over,
    prefix_of,
    read_manifest,
    verify_manifest,
)


@dataclass(frozen=True, slots=True)
class SpecDraft:
    """What the database knows; the object store is asked outside of the transaction."""

    attempt: AttemptRow
    stage: StageRow
    inputs: dict[str, ArtifactRef]
    branch_key: str | None
    """Manifest key of the checkpoint that the run was branched from, if this stage made it."""
    setbacks: tuple[Setback, ...] = ()
    """Where earlier attempts went back to, in the order of their epochs."""
    others: set[str] = field(default_factory=set)
    """Names of checkpoints of this stage that were passed over: they were made from other inputs (a stage above was retried)."""

    def has_these_inputs(self, manifest: Manifest) -> bool:
        # Its parents may name more than the inputs: also the checkpoint that its attempt went on from.
        return {i.digest for i in self.inputs.values()} <= set(manifest.parents)

    def is_made_from_these_inputs(self, manifest: Manifest) -> bool:
        same = self.has_these_inputs(manifest)
        self.others.update(() if same else [manifest.name])
        return same

    def note(self, resume: Resume) -> str | None:
        """For people: why it does not go on from what is there."""
        if resume.manifest is not None or not self.others:
            return None
        found = "the checkpoint" if len(self.others) == 1 else f"all {len(self.others)} checkpoints"
        return f"It starts from the beginning: {found} of earlier attempts came from other inputs."


class SpecBuilder:
    def __init__(self, objects: ObjectStore, store_config: StoreConfig) -> None:
        self._objects = objects
        self._config = store_config

    @staticmethod
    def attempt_row(run: RunRow, write: CreateAttempt, now: datetime) -> AttemptRow:
        return AttemptRow(
            id=attempt_id(run.id, write.stage_id, write.number),
            project_id=run.project_id,
            run_id=run.id,
            stage_id=write.stage_id,
            number=write.number,
            epoch=write.epoch,
            state=AttemptState.CREATED,
            checkpoints_back=write.checkpoints_back,
            excluded_nodes=list(write.excluded_nodes),
            world_size=write.world_size,
            created_at=now,
        )

    async def draft(self, session: AsyncSession, attempt: AttemptRow) -> SpecDraft:
        """Raises AbruzziError `missing_input` when a needed stage has made nothing of the kind, `corrupt_artifact` or NotFound for what cannot be
        an input any more."""
        run = await query.row(session, attempt.run_id)
        stage = await session.get(StageRow, (attempt.run_id, attempt.stage_id))
        assert stage is not None
        inputs = {
            name: await self._bind(session, run, binding, stage.id, name) for name, binding in stage.bindings.items()
        }
        branched = await artifacts.get(session, run.parent_artifact_id) if run.parent_artifact_id else None
        branch_key = branched.manifest_key if branched and branched.stage_id == stage.id else None
        return SpecDraft(attempt, stage, inputs, branch_key, await self._setbacks(session, attempt))

    @staticmethod
    async def _setbacks(session: AsyncSession, attempt: AttemptRow) -> tuple[Setback, ...]:
        earlier = (
            select(AttemptRow.epoch, AttemptRow.resume_step)
            .where(AttemptRow.run_id == attempt.run_id, AttemptRow.stage_id == attempt.stage_id)
            .where(AttemptRow.epoch < attempt.epoch, AttemptRow.checkpoints_back > 0, AttemptRow.spec.is_not(None))
            .order_by(AttemptRow.epoch)
        )
        found = (await session.execute(earlier)).all() if attempt.number > 1 else ()
        return tuple(Setback(each.epoch, -1 if each.resume_step is None else each.resume_step) for each in found)

    def find_resume(self, draft: SpecDraft) -> Resume:
        """Reads and verifies checkpoints: the stage's own, else the one that the run was branched from."""
        attempt = draft.attempt
        kind = StageKind(draft.stage.kind)
        if not kind.trains and kind is not StageKind.CONTAINER:
            return Resume(None, None)
        found = checkpoint_after_divergences(
            self._objects,
            output_prefix(attempt),
            max_epoch=attempt.epoch,
            in_a_row=attempt.checkpoints_back,
            setbacks=draft.setbacks,
            accept=draft.is_made_from_these_inputs,
        )
        if found.manifest is not None or draft.branch_key is None:
            return found
        try:
            manifest = read_manifest(self._objects, draft.branch_key)
            verify_manifest(self._objects, manifest, prefix_of(draft.branch_key))
        except (CorruptArtifact, NotFound) as error:
            raise AbruzziError(
                "corrupt_artifact",
                f"The checkpoint that this run was branched from is damaged or gone: {error.message}",
                status=409,
                hint="Branch from another checkpoint.",
            ) from error
        return Resume(draft.branch_key, manifest, found.corrupt)

    def find_data_step(self, draft: SpecDraft, resume: Resume) -> int | None:
        """Where the data goes on, of a stage that trains."""
        if not StageKind(draft.stage.kind).trains:
            return None
        return data_to_pass_over(
            self._objects,
            output_prefix(draft.attempt),
            resume.manifest,
            max_epoch=draft.attempt.epoch,
            accept=draft.has_these_inputs,
        )

    def damaged_inputs(self, draft: SpecDraft) -> dict[str, str]:
        """{manifest key: what is wrong}. Of checkpoints, for which there is another to fall back on, every file is read, as for a resume; of
        the rest the manifest, and the stage verifies the files as it reads them."""
        found: dict[str, str] = {}
        for name, ref in draft.inputs.items():
            try:
                manifest = read_manifest(self._objects, ref.manifest_key)
                if manifest.digest() != ref.digest:
                    found[ref.manifest_key] = f"The manifest of input {name!r} is not the one that was committed."
                elif ref.kind is ArtifactKind.CHECKPOINT:
                    verify_manifest(self._objects, manifest, prefix_of(ref.manifest_key))
            except AbruzziError as error:
                if error.code not in ("corrupt_artifact", "corrupt_manifest", "not_found"):
                    raise
                found[ref.manifest_key] = error.message
        return found

    def finish(self, draft: SpecDraft, resume: Resume, data_step: int | None) -> StageSpec:
        attempt, stage = draft.attempt, draft.stage
        ranks = attempt.world_size or stage.world_size
        return StageSpec(
            project_id=attempt.project_id,
            run_id=attempt.run_id,
            stage_id=attempt.stage_id,
            attempt_id=attempt.id,
            epoch=attempt.epoch,
            kind=StageKind(stage.kind),
            config=stage.config if ranks == stage.world_size else with_ranks(stage.config, ranks),
            inputs=draft.inputs,
            store=self._config,
            output_prefix=output_prefix(attempt),
            resume=_reference(resume.key, resume.manifest),
            data_step=data_step,
            world_size=ranks,
            seed=int(stage.config.get("seed", 0)),
        )

    async def _bind(
        self, session: AsyncSession, run: RunRow, binding: dict[str, str], stage_id: str, name: str
    ) -> ArtifactRef:
        """The artifact that is named, else the newest output of the bound stage, in this run or in the run that it was branched from.

        Of the branched stage itself only the chosen checkpoint is inherited, never a later one of the parent.
        """
        if "artifact_id" in binding:
            named = await artifacts.get(session, binding["artifact_id"])
            if named.project_id != run.project_id:  # the controller sees all projects
                raise NotFound("artifact", named.id)
            if named.corrupt_at is not None or named.deleted_at is not None:
                raise AbruzziError(
                    "corrupt_artifact",
                    f"Input {name!r} of stage {stage_id!r}: artifact {named.id} ({named.name}) {'was found damaged' if named.corrupt_at else 'was removed'}.",
                    hint="Name another artifact in the recipe, and submit it again.",
                    status=409,
                )
            return ArtifactRef(kind=named.kind, manifest_key=named.manifest_key, digest=named.digest)
        current: RunRow | None = run
        chosen: str | None = None
        while current is not None:
            found = await artifacts.newest(session, current.id, binding["stage_id"], binding["kind"])
            if chosen is not None:
                branched = await session.get(ArtifactRow, chosen)
                if branched is not None and (branched.stage_id, branched.kind) == (
                    binding["stage_id"],
                    binding["kind"],
                ):
                    found = branched
                    if branched.corrupt_at is not None:
                        raise _damaged_input(name, stage_id, binding, [branched.name])
            chosen = current.parent_artifact_id
            if found is not None:
                return ArtifactRef(kind=ArtifactKind(found.kind), manifest_key=found.manifest_key, digest=found.digest)
            lost = await artifacts.damaged(session, current.id, binding["stage_id"], binding["kind"])
            if lost:
                raise _damaged_input(name, stage_id, binding, lost)
            current = await query.row(session, current.parent_run_id) if current.parent_run_id else None
        raise AbruzziError(
            "missing_input",
            f"Input {name!r} of stage {stage_id!r}: stage {binding['stage_id']!r} has made no {binding['kind']}.",
            hint=f"Retry from stage {binding['stage_id']!r}.",
            status=409,
        )


def _damaged_input(name: str, stage_id: str, binding: dict[str, str], lost: list[str]) -> AbruzziError:
    return AbruzziError(
        "corrupt_artifact",
        f"Input {name!r} of stage {stage_id!r}: every {binding['kind']} of stage {binding['stage_id']!r} is damaged ({', '.join(lost)}).",
        hint=f"Retry from stage {binding['stage_id']!r}.",
        status=409,
    )


def _reference(key: str | None, manifest: Manifest | None) -> ArtifactRef | None:
    if key is None or manifest is None:
        return None
    return ArtifactRef(kind=manifest.kind, manifest_key=key, digest=manifest.digest())
