"""Runs that `Run` objects stand for, as Postgres has them. Each call is one transaction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.graph import nearest
from abruzzi.contracts.resources import RunOut
from abruzzi.contracts.states import RunState
from abruzzi.identity import service as identity
from abruzzi.kit.clock import Clock
from abruzzi.kit.db import Sessions, transaction
from abruzzi.runs import query, steer, submissions, submit
from abruzzi.runs.submissions import Submitted
from abruzzi.store import ObjectStore

PREFIX = "kubernetes:"
"""Of submission keys (with the object's uid) and of actors (with its namespace and name)."""


@dataclass(frozen=True, slots=True)
class Submission:
    uid: str
    namespace: str
    name: str
    project_id: str
    recipe: str
    overrides: Mapping[str, str]

    @property
    def actor(self) -> str:
        return f"{PREFIX}{self.namespace}/{self.name}"


class StoredRuns:
    """`default_pool`: see Settings."""

    def __init__(self, sessions: Sessions, objects: ObjectStore, clock: Clock, *, default_pool: str) -> None:
        self._sessions, self._objects, self._clock, self._default_pool = sessions, objects, clock, default_pool

    async def known(self, uids: Collection[str]) -> dict[str, Submitted]:
        """By uid, those that were submitted."""
        async with transaction(self._sessions) as session:
            found = await submissions.find(session, [PREFIX + uid for uid in uids])
        return {one.key.removeprefix(PREFIX): one for one in found}

    async def open(self) -> dict[str, Submitted]:
        """By uid, those that have not ended, whether or not their object is still there."""
        async with transaction(self._sessions) as session:
            found = await submissions.find_open(session, PREFIX)
        return {one.key.removeprefix(PREFIX): one for one in found}

    async def read(self, run_id: str) -> RunOut:
        async with transaction(self._sessions) as session:
            return await query.get(session, run_id, now=self._clock.now())

    async def submit(self, asked: Submission) -> str:
        """Id of its run; asked again, of the same. Raises RecipeInvalid and what else `submit` refuses, or AbruzziError `unknown_project`."""
        async with transaction(self._sessions) as session:
            if known := await submissions.claim(session, PREFIX + asked.uid):
                return known
            projects = [project.id for project in await identity.list_projects(session)]
            if asked.project_id not in projects:
                raise AbruzziError(
                    "unknown_project",
                    f"Namespace {asked.namespace!r} submits to project {asked.project_id!r}, which is not there.",
                    status=422,
                    hint=nearest(asked.project_id, projects) + " The namespace's label abruzzi.io/project names it.",
                )
            run = await submit.submit(
                session,
                project_id=asked.project_id,
                objects=self._objects,
                recipe_toml=asked.recipe,
                overrides=asked.overrides,
                name=asked.name,
                actor=asked.actor,
                now=self._clock.now(),
                default_pool=self._default_pool,
                submission_key=PREFIX + asked.uid,
            )
            self._audit(session, asked.project_id, asked.actor, "submit", run.id)
        return run.id

    async def cancel(self, run: Submitted) -> None:
        """Asks for its end; nothing to ask of one that has ended meanwhile."""
        async with transaction(self._sessions) as session:
            row = await query.row(session, run.run_id, lock=True)
            if RunState(row.state).is_terminal or row.desired == "cancel":
                return
            await steer.cancel(session, run.run_id, now=self._clock.now())
            self._audit(session, run.project_id, run.created_by, "cancel", run.run_id)

    @staticmethod
    def _audit(session, project_id: str, actor: str, verb: str, run_id: str) -> None:  # type: ignore[no-untyped-def]
        identity.audit(
            session,
            project_id=project_id,
            actor=actor,
            action=f"{verb} runs.abruzzi.io",
            object_=f"/api/v1/runs/{run_id}",
            outcome="allowed",
        )


def place_of(run: Submitted) -> Sequence[str]:
    """Namespace and name of the object that it was submitted by."""
    return run.created_by.removeprefix(PREFIX).split("/", 1)
