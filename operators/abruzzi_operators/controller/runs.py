"""The reconciler of `Run` objects: what kubectl or GitOps applies is submitted, and what becomes of it is written into its status.

Level-triggered, and the same in every replica: a submission is keyed by the object's uid, a status is only written over the version that was
read. Which namespace may submit to which project its label says, and namespaces are written by administrators of the cluster; without the label
nothing is accepted. No finalizer: one would keep namespaces from being deleted once this controller is gone. Instead a run whose object is
gone is found in Postgres and cancelled, also when the object went while nobody looked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, Self

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.resources import RunOut
from abruzzi.contracts.states import RunState
from abruzzi.kit.db import DATABASE_ERRORS
from abruzzi.runs.submissions import Submitted
from abruzzi_operators.controller.run_rows import Submission, place_of
from abruzzi_operators.controller.run_status import material, mirror, refusal, without_gaps
from abruzzi_operators.kubernetes.api import Api
from abruzzi_operators.kubernetes.errors import ApiError, Conflict, Denied, NotFound, NotServed
from abruzzi_operators.kubernetes.reflector import Reflector, Tuning
from abruzzi_operators.kubernetes.resources import NAMESPACES, RUNS, Object
from abruzzi_operators.renderers.names import LABEL_PROJECT

logger = logging.getLogger(__name__)

LABEL_PLATFORM = "abruzzi.io/platform"
LOOK_SECONDS = 2.0
"""How soon a change in Postgres shows; one of an object is looked at when it comes."""
VOLATILE_SECONDS = 15.0
"""Progress alone is written no oftener."""
SETTLED_SECONDS = 60.0
"""How often a run that has ended, or was refused, is looked at: somebody may have retried it, or made the pool that it names."""
ABSENT_SECONDS = 60.0
"""Between two looks for the kind on a cluster that has none."""
FAILED_SECONDS = 10.0
BATCH_SECONDS = 0.1
"""Changes that come together are one look."""


class Rows(Protocol):
    """run_rows.StoredRuns."""

    async def known(self, uids: Collection[str]) -> dict[str, Submitted]: ...

    async def open(self) -> dict[str, Submitted]: ...

    async def read(self, run_id: str) -> RunOut: ...

    async def submit(self, asked: Submission) -> str: ...

    async def cancel(self, run: Submitted) -> None: ...


@dataclass(frozen=True, slots=True)
class Seen:
    """An object as it was handled last; it is handled again when one of these differs, or at `again_at`."""

    marks: tuple[str, str]
    """Versions of the object and of its namespace."""
    run_version: int | None
    again_at: float
    is_settled: bool
    """Not even the run's version is asked for before `again_at`."""


class RunController:
    def __init__(
        self,
        api: Api,
        rows: Rows,
        *,
        now: Callable[[], datetime],
        platform: str = "",
        url: str | None = None,
        tuning: Tuning | None = None,
    ) -> None:
        """`platform`: see Settings; `url`: of the dashboard."""
        self._api, self._rows, self._now, self._platform, self._url = api, rows, now, platform, url
        self._runs: Reflector[Object] = Reflector(api, RUNS, project=_kept, tuning=tuning)
        self._namespaces: Reflector[Mapping[str, str]] = Reflector(
            api,
            NAMESPACES,
            project=lambda thing: dict(thing["metadata"].get("labels") or {}),
            label_selector=LABEL_PROJECT,
            tuning=tuning,
        )
        self._open = AsyncExitStack()
        self._seen: dict[str, Seen] = {}
        self._told_at: dict[str, float] = {}
        """When the status of an object was written last, by whomever."""

    async def run(self) -> None:
        """Until cancelled. A cluster without the kind, or without the rights to it, is asked again now and then."""
        while True:
            try:
                await self._api.page(RUNS, limit=1)
                async with self:
                    await self._follow()
            except NotServed:
                await asyncio.sleep(ABSENT_SECONDS)
            except Denied as error:
                logger.warning("Runs of the cluster are not looked after: %s", error)
                await asyncio.sleep(ABSENT_SECONDS)
            except Exception:
                logger.exception("cannot look after the Runs of the cluster; again in %.0f s", FAILED_SECONDS)
                await asyncio.sleep(FAILED_SECONDS)

    async def __aenter__(self) -> Self:
        """Follows the cluster. Raises ApiError while the first lists are not complete."""
        async with AsyncExitStack() as opening:
            for reflector in (self._runs, self._namespaces):
                await opening.enter_async_context(reflector)
                await reflector.synced()
            self._open = opening.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def _follow(self) -> None:
        changes = [self._runs.subscribe(), self._namespaces.subscribe()]
        try:
            while True:
                try:
                    await self.look()
                except DATABASE_ERRORS as error:
                    logger.warning("Runs of the cluster wait for the database (%s)", type(error).__name__)
                await _first(*(change.changed() for change in changes), seconds=LOOK_SECONDS)
                await asyncio.sleep(BATCH_SECONDS)
        finally:
            for change in changes:
                change.close()

    async def look(self) -> None:
        """Once over all objects, and over the runs whose objects are gone. One that fails does not keep the others."""
        here = {entry.uid: entry.value for entry in list(self._runs.entries.values())}
        for remembered in (self._seen, self._told_at):
            for uid in remembered.keys() - here.keys():
                del remembered[uid]
        awake = {uid: thing for uid, thing in here.items() if not self._sleeps(uid, thing)}
        known = await self._rows.known(list(awake))
        for uid, thing in awake.items():
            if self._is_due(uid, thing, known.get(uid)):
                await self._try(thing, known.get(uid))
        if self._runs.problem is None:
            await self._cancel_absent(here)

    async def _try(self, thing: Object, run: Submitted | None) -> None:
        try:
            await self._look_at(thing, run)
        except Conflict:
            return  # it is of an older version than the server's; the watch brings the newer
        except ApiError as error:
            logger.warning("Run %s/%s: %s", *_place(thing), error.message)
        except DATABASE_ERRORS:
            raise
        except Exception:
            logger.exception("Run %s/%s: again at the next look", *_place(thing))

    async def _look_at(self, thing: Object, run: Submitted | None) -> None:
        try:
            run = run or await self._submitted(thing)
        except AbruzziError as error:
            if error.status >= 500:
                raise
            await self._refuse(thing, error)
            return
        if run is None:
            again_at = self._now().timestamp() + SETTLED_SECONDS
            self._seen[thing["metadata"]["uid"]] = Seen(self._marks(thing), None, again_at, is_settled=True)
            return
        if thing["spec"].get("cancel") and not run.state.is_terminal and run.state is not RunState.CANCELLING:
            await self._rows.cancel(run)
        read = await self._rows.read(run.run_id)
        before = thing.get("status") or {}
        status = mirror(read, generation=_generation(thing), before=before, url=self._url, now=self._now())
        await self._write(thing, status, read.version, is_settled=read.state.is_terminal)

    async def _submitted(self, thing: Object) -> Submitted | None:
        """None: another platform's. Raises AbruzziError for what may not be."""
        namespace, name = _place(thing)
        labels = self._namespaces.get(namespace)
        if labels is None:
            if "runId" in (thing.get("status") or {}):
                return None  # of a platform whose namespace this was
            raise AbruzziError(
                "namespace_not_allowed",
                f"Namespace {namespace!r} may not submit runs.",
                status=403,
                hint=f"An administrator of the cluster allows it: `kubectl label namespace {namespace} {LABEL_PROJECT}=PROJECT`.",
            )
        if labels.get(LABEL_PLATFORM, "") != self._platform:
            return None
        self._check(thing, labels[LABEL_PROJECT])
        spec, uid = thing["spec"], thing["metadata"]["uid"]
        asked = Submission(uid, namespace, name, labels[LABEL_PROJECT], spec["recipe"], spec.get("set") or {})
        run_id = await self._rows.submit(asked)
        logger.info("Run %s/%s is run %s of project %s", namespace, name, run_id, asked.project_id)
        return (await self._rows.known([uid]))[uid]

    @staticmethod
    def _check(thing: Object, project: str) -> None:
        """Raises AbruzziError."""
        spec, lost = thing["spec"], (thing.get("status") or {}).get("runId")
        if lost is not None:
            raise AbruzziError(
                "run_lost",
                f"This platform does not know run {lost} any more; was its database restored to an older state?",
                status=409,
                hint="Delete this Run and create it again to run the recipe once more.",
            )
        if spec.get("project", project) != project:
            raise AbruzziError(
                "project_not_allowed",
                f"Namespace {_place(thing)[0]!r} submits to project {project!r}, not to {spec['project']!r}.",
                status=403,
                hint="Leave spec.project out, or use a namespace of that project.",
            )
        if spec.get("cancel"):
            raise AbruzziError("cancelled", "It was cancelled before it was submitted.", status=409)

    async def _refuse(self, thing: Object, error: AbruzziError) -> None:
        before = thing.get("status") or {}
        status = refusal(error, generation=_generation(thing), before=before, now=self._now())
        await self._write(thing, status, None, is_settled=True)

    async def _write(self, thing: Object, status: Object, run_version: int | None, *, is_settled: bool) -> None:
        """What differs from what is there; progress alone not at once. Raises Conflict where the object has changed meanwhile."""
        before, uid, now = thing.get("status") or {}, thing["metadata"]["uid"], self._now().timestamp()
        marks = self._marks(thing)
        if uid not in self._seen or self._seen[uid].marks[0] != marks[0]:
            self._told_at[uid] = now
        is_quiet = material(status) == material(before) and now - self._told_at.get(uid, 0.0) < VOLATILE_SECONDS
        if without_gaps(status) != before and not is_quiet:
            namespace, name = _place(thing)
            patch = {"metadata": {"resourceVersion": marks[0]}, "status": status}
            written = await self._api.patch(RUNS, name, patch, namespace=namespace, subresource="status")
            marks = (written["metadata"]["resourceVersion"], marks[1])
            self._told_at[uid] = now
        again_at = now + (SETTLED_SECONDS if is_settled else VOLATILE_SECONDS)
        self._seen[uid] = Seen(marks, run_version, again_at, is_settled)

    async def _cancel_absent(self, here: Collection[str]) -> None:
        """Runs whose object was deleted. The apiserver itself says so: the cache may lack what is new."""
        for uid, run in (await self._rows.open()).items():
            try:
                if uid not in here and await self._is_gone(uid, run):
                    logger.info("run %s: the object that it was submitted by is gone; cancelling it", run.run_id)
                    await self._rows.cancel(run)
            except ApiError as error:
                logger.warning("run %s: whether its object is gone is not known: %s", run.run_id, error.message)

    async def _is_gone(self, uid: str, run: Submitted) -> bool:
        if run.state is RunState.CANCELLING:
            return False
        namespace, name = place_of(run)
        try:
            return (await self._api.get(RUNS, name, namespace=namespace))["metadata"]["uid"] != uid
        except NotServed:
            return False  # the kind itself is gone: that is no word about the runs
        except NotFound:
            return True

    def _marks(self, thing: Object) -> tuple[str, str]:
        namespace = self._namespaces.entries.get(("", thing["metadata"]["namespace"]))
        return thing["metadata"]["resourceVersion"], namespace.resource_version if namespace else ""

    def _sleeps(self, uid: str, thing: Object) -> bool:
        if "deletionTimestamp" in thing["metadata"]:
            return True  # somebody else's finalizer; it counts as gone when it is
        seen = self._seen.get(uid)
        return seen is not None and seen.is_settled and not self._is_due(uid, thing, None, seen.run_version)

    def _is_due(self, uid: str, thing: Object, run: Submitted | None, version: int | None = None) -> bool:
        seen, version, marks = self._seen.get(uid), run.version if run else version, self._marks(thing)
        if seen is None or self._now().timestamp() >= seen.again_at:
            return True
        if int(marks[0]) < int(seen.marks[0]):
            return False  # what we wrote is not in the cache yet (or etcd was restored: then `again_at` comes)
        return seen.marks != marks or seen.run_version != version


def _kept(thing: Object) -> Object:
    """What is read of it; the recipe only until it is submitted."""
    metadata, spec, status = thing["metadata"], dict(thing["spec"]), thing.get("status")
    if status and "runId" in status:
        spec.pop("recipe", None)
    kept = {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion", "generation", "deletionTimestamp") if key in metadata}  # fmt: skip
    return {"metadata": kept, "spec": spec, **({"status": status} if status else {})}


def _place(thing: Object) -> tuple[str, str]:
    return thing["metadata"]["namespace"], thing["metadata"]["name"]


def _generation(thing: Object) -> int:
    return int(thing["metadata"].get("generation", 0))


async def _first(*waits: Any, seconds: float) -> None:
    """Until one of them has an answer, or the time is over. Raises what one of them raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
