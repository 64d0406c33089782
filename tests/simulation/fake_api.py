"""`Api` in memory, for the tests of whoever speaks to a cluster. It passes the suite of api_contract.py, as a real apiserver does.

Not here: schemas (an unknown field is taken), RBAC, and every controller. `admission` takes the place of policies, `collect_garbage` of the
garbage collector. Time is the caller's (`now`), identities come from a counter, so a simulation can replay everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from simulation.fake_fields import Path, apply_fields, json_patch, leaves, matches_fields, matches_labels, merge_patch

from abruzzi_operators.kubernetes import resources
from abruzzi_operators.kubernetes.api import FIELD_MANAGER, PAGE_SIZE, Event, Page, PatchKind, Propagation
from abruzzi_operators.kubernetes.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    Denied,
    Expired,
    Invalid,
    NotFound,
    NotServed,
    Unreachable,
)
from abruzzi_operators.kubernetes.resources import NAMESPACES, PODS, Object, Resource

Key = tuple[str, str, str]
"""Resource's full name, namespace (empty: none), name."""
Admission = Callable[[str, Resource, Object, Object | None], str | None]
"""(create | update | delete, resource, new or deleted object, old object) → why not."""
ALL_KINDS = tuple(value for value in vars(resources).values() if isinstance(value, Resource))


@dataclass(slots=True)
class Stored:
    resource: Resource
    versions: list[tuple[int, Object | None]]
    """Oldest first; None: deleted at that revision."""
    owners: dict[Path, set[str]] = field(default_factory=dict)

    def at(self, revision: int) -> Object | None:
        return next((thing for when, thing in reversed(self.versions) if when <= revision), None)

    @property
    def now(self) -> Object | None:
        return self.versions[-1][1] if self.versions else None


@dataclass(frozen=True, slots=True)
class Change:
    revision: int
    resource: Resource
    namespace: str
    before: Object | None
    after: Object | None


class FakeApi:
    """Implements abruzzi_operators.kubernetes.api.Api."""

    def __init__(self, *, served: Iterable[Resource] = ALL_KINDS, now: Callable[[], float] | None = None) -> None:
        self.served = {kind.full_name: kind for kind in served}
        self.admission: list[Admission] = []
        self.down: ApiError | None = None
        """Set: every call fails with it, and watches break."""
        self.forbidden: set[tuple[str, str]] = set()
        """(verb, plural) that RBAC denies."""
        self.logs: dict[tuple[str, str], bytes] = {}
        """What (namespace, pod) has printed."""
        self.paths: dict[str, Object] = {}
        """Answers of get_path; discovery answers by itself, from `served`."""
        self.calls: Counter[tuple[str, str]] = Counter()
        self._now = now or (lambda: datetime.now(UTC).timestamp())
        self._stored: dict[Key, Stored] = {}
        self._revision = 1
        self._log: list[Change] = []
        self._compacted = 0
        self._born = 0
        self.watchers = 0
        """Streams that are open."""
        self._epoch = 0  # of watches: breaking them all raises it
        self._news = asyncio.Event()
        for name in ("default", "kube-system"):
            self._create(NAMESPACES, NAMESPACES.new(name))

    # what a test does to it

    def compact(self) -> None:
        """Forget history: older resource versions and continue tokens are Expired."""
        self._compacted = self._revision
        self._log = []

    def break_watches(self) -> None:
        """Every stream ends as if the connection was cut."""
        self._epoch += 1
        self._tell()

    def fail(self, error: ApiError | None) -> None:
        """Down with `error` until called with None."""
        self.down = error
        self.break_watches()

    def forget_silently(self, resource: Resource, name: str, namespace: str = "") -> None:
        """Remove an object without telling any watch: what an event lost on its way looks like."""
        stored = self._stored[(resource.full_name, namespace, name)]
        self._revision += 1
        stored.versions.append((self._revision, None))

    def snapshot(self) -> object:
        return copy.deepcopy((self._stored, self._revision, self._log, self._compacted))

    def restore(self, snapshot: object) -> None:
        """etcd put back to an older state: what came after never happened, its versions are given out again. Streams break."""
        self._stored, self._revision, self._log, self._compacted = copy.deepcopy(snapshot)  # type: ignore[misc]
        self.break_watches()

    def put_status(self, resource: Resource, name: str, status: Object, *, namespace: str | None = None) -> Object:
        """As the kubelet or an operator does it."""
        stored = self._find(resource, name, namespace)
        return self._replace(stored, copy.deepcopy({**_current(stored), "status": status}))

    def collect_garbage(self) -> int:
        """One pass of the garbage collector: delete what only refers to owners that are gone. Returns how many."""
        alive = {thing["metadata"]["uid"] for stored in self._stored.values() if (thing := stored.now)}
        orphans = [
            stored for stored in self._stored.values()
            if (thing := stored.now) and (owners := thing["metadata"].get("ownerReferences"))
            and not any(owner["uid"] in alive for owner in owners) and "deletionTimestamp" not in thing["metadata"]
        ]  # fmt: skip
        for stored in orphans:
            self._delete(stored, None)
        return len(orphans) + (self.collect_garbage() if orphans else 0)

    # Api

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Object:
        resource.path(name, namespace=namespace)
        await self._enter("get", resource)
        return copy.deepcopy(_current(self._find(resource, name, namespace)))

    async def page(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = PAGE_SIZE,
        continue_token: str = "",
        resource_version: str = "",
    ) -> Page:
        await self._enter("list", resource)
        after: tuple[str, str] = ("", "")
        revision = int(resource_version or self._revision)
        if continue_token:
            revision, *rest = json.loads(continue_token)
            after = (rest[0], rest[1])
        self._check_history(revision)
        found = [
            thing for (kind, where, name), stored in sorted(self._stored.items(), key=lambda item: item[0])
            if kind == resource.full_name and (where, name) > after and (namespace is None or where == namespace)
            and (thing := stored.at(revision)) and _selected(thing, label_selector, field_selector)
        ]  # fmt: skip
        items, more = (found[:limit], found[limit:]) if limit else (found, [])
        last = items[-1]["metadata"] if items else {}
        token = json.dumps([revision, last.get("namespace", ""), last["name"]]) if more else ""
        return Page(copy.deepcopy(items), str(revision), token)

    async def list(
        self, resource: Resource, *, namespace: str | None = None, label_selector: str = "", field_selector: str = ""
    ) -> Sequence[Object]:
        page = await self.page(
            resource, namespace=namespace, label_selector=label_selector, field_selector=field_selector, limit=0
        )
        return page.items

    async def create(self, resource: Resource, body: Object, *, dry_run: bool = False) -> Object:
        await self._enter("create", resource)
        return copy.deepcopy(self._create(resource, copy.deepcopy(body), dry_run=dry_run))

    async def apply(
        self,
        resource: Resource,
        body: Object,
        *,
        force: bool = True,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        await self._enter("apply", resource)
        body, metadata = copy.deepcopy(body), body["metadata"]
        stored = self._stored.get((resource.full_name, metadata.get("namespace", ""), metadata["name"]))
        if stored is None or stored.now is None:
            if subresource:
                raise _not_found(resource, metadata["name"])
            created = self._create(resource, body, dry_run=dry_run, owned=True)
            return copy.deepcopy(created)
        owners = copy.deepcopy(stored.owners)
        wanted = _part(body, subresource)
        after = apply_fields(_current(stored), _owned(wanted), owners, FIELD_MANAGER, force=force)
        result = self._replace(stored, _kept(_current(stored), after, subresource), dry_run=dry_run)
        if not dry_run:
            stored.owners = owners
        return copy.deepcopy(result)

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        namespace: str | None = None,
        kind: PatchKind = "merge",
        subresource: str | None = None,
    ) -> Object:
        await self._enter("patch", resource)
        stored = self._find(resource, name, namespace)
        before = _current(stored)
        if isinstance(patch, Mapping):
            after = merge_patch(before, patch)
            version = (patch.get("metadata") or {}).get("resourceVersion", before["metadata"]["resourceVersion"])
            if version != before["metadata"]["resourceVersion"]:
                raise _conflict(
                    resource, name, "the object has been modified; please apply your changes to the latest version"
                )
        else:
            after = json_patch(before, patch)
        result = self._replace(stored, _kept(before, after, subresource))
        if stored.now:
            self._own_changes(stored, before, stored.now)
        return copy.deepcopy(result)

    async def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = None,
        uid: str | None = None,
        grace_seconds: int | None = None,
        propagation: Propagation = "Background",
    ) -> None:
        await self._enter("delete", resource)
        stored = self._find(resource, name, namespace)
        have = _current(stored)["metadata"]["uid"]
        if uid is not None and uid != have:
            raise _conflict(
                resource, name, f"the UID in the precondition ({uid}) does not match the UID in record ({have})"
            )
        self._admit("delete", resource, _current(stored), None)
        self._delete(stored, grace_seconds)

    async def watch(
        self,
        resource: Resource,
        *,
        resource_version: str,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        timeout_seconds: int = 300,
        read_timeout_seconds: float = 90.0,
    ) -> AsyncIterator[Event]:
        await self.open_watch(resource, resource_version)
        at, epoch = int(resource_version), self._epoch
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        self.watchers += 1
        try:
            yield Event("OPENED", {"metadata": {"resourceVersion": resource_version}})
            while True:
                news = self._news
                for change in self._log[bisect_right(self._log, at, key=lambda change: change.revision) :]:
                    at = change.revision
                    if event := _seen(change, resource, namespace, label_selector, field_selector):
                        yield event
                if self._epoch != epoch:
                    raise Unreachable(f"watch {resource.full_name}: the connection broke.", reason="ReadError")
                if asyncio.get_running_loop().time() >= deadline:
                    if self._log and self._log[-1].revision > at:
                        continue  # written while the consumer had an event
                    yield Event("BOOKMARK", {"metadata": {"resourceVersion": str(self._revision)}})
                    return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(deadline):
                        await news.wait()
        finally:
            self.watchers -= 1

    async def open_watch(self, resource: Resource, resource_version: str) -> None:
        """What a watch is refused with before its stream begins."""
        await self._enter("watch", resource)
        self._check_history(int(resource_version))

    async def read_log(self, namespace: str, pod: str, *, container: str | None = None) -> bytes:
        await self._enter("log", PODS)
        self._find(PODS, pod, namespace)
        return self.logs.get((namespace, pod), b"")

    async def get_path(self, path: str, query: Mapping[str, str] | None = None, *, accept: str = "") -> Object:
        self.calls["get", path] += 1
        if self.down:
            raise self.down
        if path not in self.paths and path in ("/apis", "/version"):
            return {"gitVersion": "v1.34.4"} if path == "/version" else self._discovery()
        if path not in self.paths:
            raise NotServed(f"get {path}: 404 page not found", http_status=404)
        return copy.deepcopy(self.paths[path])

    # inside

    def _discovery(self) -> Object:
        groups: dict[str, dict[str, list[Object]]] = {}
        for kind in self.served.values():
            listed = {
                "resource": kind.plural,
                "responseKind": {"kind": kind.kind},
                "scope": "Namespaced" if kind.namespaced else "Cluster",
            }
            groups.setdefault(kind.group, {}).setdefault(kind.version, []).append(listed)
        items = [
            {"metadata": {"name": group}, "versions": [{"version": version, "resources": kinds} for version, kinds in versions.items()]}
            for group, versions in groups.items() if group
        ]  # fmt: skip
        return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": items}

    async def _enter(self, verb: str, resource: Resource) -> None:
        await asyncio.sleep(0)  # a call takes a turn, as a real one does
        if self.down:
            raise self.down
        served = self.served.get(resource.full_name)
        if served is None or served.version != resource.version:
            raise NotServed(f"{verb} {resource.full_name}: 404 page not found", http_status=404)
        if (verb, resource.plural) in self.forbidden:
            raise Denied(
                f"{verb} {resource.full_name}: forbidden by RBAC (403 Forbidden).", http_status=403, reason="Forbidden"
            )
        self.calls[verb, resource.plural] += 1

    def _check_history(self, revision: int) -> None:
        if revision < self._compacted:
            raise Expired(
                f"too old resource version: {revision} ({self._compacted})", http_status=410, reason="Expired"
            )

    def _admit(self, verb: str, resource: Resource, new: Object, old: Object | None) -> None:
        for rule in self.admission:
            if why := rule(verb, resource, new, old):
                raise Denied(f"{verb} {resource.full_name}: {why}", http_status=403, reason="Forbidden")

    def _find(self, resource: Resource, name: str, namespace: str | None) -> Stored:
        stored = self._stored.get((resource.full_name, namespace or "", name))
        if stored is None or stored.now is None:
            raise _not_found(resource, name)
        return stored

    def _create(self, resource: Resource, body: Object, *, dry_run: bool = False, owned: bool = False) -> Object:
        metadata = body.get("metadata") or {}
        name, namespace = metadata.get("name", ""), metadata.get("namespace", "")
        if body.get("kind") != resource.kind or body.get("apiVersion") != resource.api_version or not name:
            raise Invalid(
                f"create {resource.full_name}: kind, apiVersion or name is wrong", http_status=400, reason="BadRequest"
            )
        if resource.namespaced:
            self._find(NAMESPACES, namespace, None)
        key = (resource.full_name, namespace, name)
        stored = self._stored.get(key)
        if stored and stored.now:
            raise AlreadyExists(
                f'{resource.full_name} "{name}" already exists', http_status=409, reason="AlreadyExists"
            )
        self._admit("create", resource, body, None)
        self._born += 1
        born = datetime.fromtimestamp(int(self._now()), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata |= {"uid": f"00000000-0000-4000-8000-{self._born:012x}", "creationTimestamp": born}
        body["metadata"] = {key: value for key, value in metadata.items() if value not in ({}, [])}
        body.pop("status", None)  # is written through the subresource only
        if resource.kind == "Pod":
            body["status"] = {"phase": "Pending"}
        if dry_run:
            return body
        if stored is None:
            stored = self._stored[key] = Stored(resource, [])
        created = self._commit(stored, body)
        stored.owners = {
            path: {FIELD_MANAGER if owned else f"{FIELD_MANAGER} (update)"} for path, _ in leaves(_owned(body))
        }
        return created

    @staticmethod
    def _own_changes(stored: Stored, before: Object, after: Object) -> None:
        """A patch takes the fields that it changes."""
        old = dict(leaves(_owned(before)))
        for path, value in leaves(_owned(after)):
            if path not in old or old[path] != value:
                stored.owners[path] = {f"{FIELD_MANAGER} (update)"}

    def _replace(self, stored: Stored, after: Object, *, dry_run: bool = False) -> Object:
        """A new version, unless nothing changed; the end of an object whose last finalizer went."""
        before = _current(stored)
        for key in ("uid", "creationTimestamp", "resourceVersion", "deletionTimestamp"):
            after["metadata"].pop(key, None)
            if key in before["metadata"]:
                after["metadata"][key] = before["metadata"][key]
        if after == before:
            return before
        self._admit("update", stored.resource, after, before)
        if dry_run:
            return after
        committed = self._commit(stored, after)
        is_leaving = "deletionTimestamp" in committed["metadata"] and stored.resource.kind != "Pod"
        if is_leaving and not committed["metadata"].get("finalizers"):
            self._end(stored)
        return committed

    def _delete(self, stored: Stored, grace_seconds: int | None) -> None:
        thing = copy.deepcopy(_current(stored))
        metadata, is_first = thing["metadata"], "deletionTimestamp" not in thing["metadata"]
        grace = self._pod_grace(thing, grace_seconds) if stored.resource.kind == "Pod" else 0
        if not grace and not metadata.get("finalizers"):
            return self._end(stored)
        if is_first or (stored.resource.kind == "Pod" and grace < metadata.get("deletionGracePeriodSeconds", 0)):
            ends = datetime.fromtimestamp(int(self._now()) + grace, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            metadata |= {"deletionTimestamp": ends, "deletionGracePeriodSeconds": grace}
            self._commit(stored, thing)
        return None

    @staticmethod
    def _pod_grace(pod: Object, asked: int | None) -> int:
        """A pod on a node waits for its kubelet; one that has no node or has ended goes at once."""
        has_ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if not pod.get("spec", {}).get("nodeName") or has_ended:
            return 0
        return asked if asked is not None else pod["spec"].get("terminationGracePeriodSeconds", 30)

    def _commit(self, stored: Stored, thing: Object) -> Object:
        thing["metadata"]["resourceVersion"] = str(self._revision + 1)
        self._record(stored, thing)
        return thing

    def _end(self, stored: Stored) -> None:
        self._record(stored, None)
        stored.owners = {}

    def _record(self, stored: Stored, after: Object | None) -> None:
        self._revision += 1
        before = stored.now
        namespace = ((after or before or {}).get("metadata") or {}).get("namespace", "")
        self._log.append(Change(self._revision, stored.resource, namespace, before, after))
        stored.versions.append((self._revision, after))
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def _seen(
    change: Change, resource: Resource, namespace: str | None, label_selector: str, field_selector: str
) -> Event | None:
    """As the watcher sees it: an object that leaves the selection is deleted for it, with its last selected state."""
    if change.resource.full_name != resource.full_name or namespace not in (None, change.namespace):
        return None
    before, after = (
        thing if thing and _selected(thing, label_selector, field_selector) else None
        for thing in (change.before, change.after)
    )
    if after:
        return Event("MODIFIED" if before else "ADDED", copy.deepcopy(after))
    if not before:
        return None
    gone = copy.deepcopy(before)
    gone["metadata"]["resourceVersion"] = str(change.revision)
    return Event("DELETED", gone)


def _selected(thing: Object, label_selector: str, field_selector: str) -> bool:
    return matches_labels(label_selector, thing["metadata"].get("labels") or {}) and matches_fields(
        field_selector, thing
    )


def _current(stored: Stored) -> Object:
    assert stored.now is not None
    return stored.now


def _owned(thing: Object) -> Object:
    """Without what belongs to the server or names the object."""
    metadata = {
        key: thing["metadata"][key]
        for key in ("labels", "annotations", "finalizers", "ownerReferences")
        if key in thing["metadata"]
    }
    rest = {key: value for key, value in thing.items() if key not in ("apiVersion", "kind", "metadata")}
    return {**rest, **({"metadata": metadata} if metadata else {})}


def _part(body: Object, subresource: str | None) -> Object:
    return {"metadata": body["metadata"], "status": body.get("status", {})} if subresource == "status" else body


def _kept(before: Object, after: Object, subresource: str | None) -> Object:
    """A write to the object leaves its status alone, one to its status everything else."""
    if subresource == "status":
        return {**copy.deepcopy(before), "status": after.get("status", {})}
    kept = {key: value for key, value in copy.deepcopy(after).items() if key != "status"}
    return {**kept, "status": copy.deepcopy(before["status"])} if "status" in before else kept


def _not_found(resource: Resource, name: str) -> NotFound:
    return NotFound(f'{resource.full_name} "{name}" not found', http_status=404, reason="NotFound")


def _conflict(resource: Resource, name: str, why: str) -> Conflict:
    return Conflict(
        f'Operation cannot be fulfilled on {resource.full_name} "{name}": {why}', http_status=409, reason="Conflict"
    )
