"""Calls to a Kubernetes apiserver on plain dicts. `RestApi` speaks to a real one, `FakeApi` (tests/simulation) keeps its objects in memory; one
contract suite (tests/simulation/api_contract.py) holds both to the same behaviour.

Every method raises the errors of `errors.py`. Writes are checked strictly: an unknown field is `Invalid`, never dropped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from abruzzi_operators.kubernetes.resources import Object, Resource

FIELD_MANAGER = "abruzzi"
PAGE_SIZE = 500
"""Objects a page of a list: a page of pods is about 4 MB of JSON."""

Propagation = Literal["Background", "Foreground", "Orphan"]
PatchKind = Literal["merge", "json"]


@dataclass(frozen=True, slots=True)
class Page:
    items: list[Object]
    resource_version: str
    """Of the whole list, the same on each page: a watch from here misses nothing."""
    continue_token: str
    """Empty on the last page."""


@dataclass(frozen=True, slots=True)
class Event:
    kind: Literal["OPENED", "ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    """OPENED is ours and comes first: the server has taken the watch, though it may have nothing to tell for long."""
    object: Object
    """Of OPENED and BOOKMARK only `metadata.resourceVersion` means something; of DELETED, the object's last state."""

    @property
    def resource_version(self) -> str:
        return self.object["metadata"]["resourceVersion"]


class Api(Protocol):
    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Object:
        """Raises NotFound, or NotServed where the cluster does not know the kind."""
        ...

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
        """One page of a list. `resource_version`: the state at exactly this version. `limit` 0: everything at once. Raises Expired."""
        ...

    async def list(
        self, resource: Resource, *, namespace: str | None = None, label_selector: str = "", field_selector: str = ""
    ) -> Sequence[Object]:
        """All pages. Without namespace: of all namespaces."""
        ...

    async def create(self, resource: Resource, body: Object, *, dry_run: bool = False) -> Object:
        """In the namespace of its metadata. Raises AlreadyExists, Invalid, Denied."""
        ...

    async def apply(
        self,
        resource: Resource,
        body: Object,
        *,
        force: bool = True,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Server-side apply under the field manager `abruzzi`: creates or updates, and removes fields that were applied before and are not now.

        `body` needs apiVersion, kind and name. Raises Conflict where another manager owns a field and `force` is off.
        """
        ...

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
        """A merge patch by default (None deletes a key); a `metadata.resourceVersion` in it makes it conditional (Conflict)."""
        ...

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
        """`uid` set: only that very object, else Conflict. Returns when the deletion is accepted; finalizers may keep the object. Raises NotFound."""
        ...

    def watch(
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
        """OPENED, then the events after `resource_version`, with bookmarks. Ends quietly after `timeout_seconds` (the server's clock).

        Raises Expired (410 as an answer or inside the stream), Unreachable (also after `read_timeout_seconds` of silence). One pass,
        for whoever can bear that; a `Reflector` goes on for ever.
        """
        ...

    async def read_log(self, namespace: str, pod: str, *, container: str | None = None) -> bytes:
        """What a container has printed so far; the kubelet keeps the newest 10 MiB. `container` may be left out where there is one."""
        ...

    async def get_path(self, path: str, query: Mapping[str, str] | None = None, *, accept: str = "") -> Object:
        """Anything else that answers JSON: discovery, Kueue's pending workloads, metrics."""
        ...
