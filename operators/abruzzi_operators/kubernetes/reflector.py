"""A cache of one kind of object that follows the apiserver: list, then watch, for ever.

What it survives, and how (reference: reliability.md §2.2; tests/unit/abruzzi_operators/test_reflector_*.py):

- history that is gone (410 as an answer, or as an ERROR event inside a 200 stream; etcd compaction): list again, and what is no longer
  there is told as deleted;
- connections that break, end inside an event, or say nothing (half-open): watch again from the last version that was seen;
- 429 and 5xx: back off with jitter, longer where Retry-After asks for it; 401: RestApi reads the credentials again;
- an etcd that was restored from an older snapshot: versions that are given out a second time would be silence for a watch, so whenever a
  server answers again its version is compared with ours before it is listened to, and the whole cache where it was away for longer;
- events that are lost for no known reason: every few minutes the list *at exactly the version of the cache* is compared with the cache.
  There a difference can't be a matter of timing; it is corrected and counted as drift.

Memory is bounded by the number of objects: each is cut down by `project` before it is kept, readers get the set of keys that changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, Self, TypeVar

from prometheus_client import Counter

from abruzzi_operators.kubernetes.api import Api, Event
from abruzzi_operators.kubernetes.errors import ApiError, Expired, Unreachable
from abruzzi_operators.kubernetes.resources import Object, Resource

log = logging.getLogger(__name__)
T = TypeVar("T")
Key = tuple[str, str]
"""(namespace, name); the namespace is empty for objects of the cluster."""


HAPPENED = Counter(
    "abruzzi_reflector", "What happened to the caches of cluster objects; `drift` should stay 0.", ["resource", "what"]
)


@dataclass(frozen=True, slots=True)
class Tuning:
    page_size: int = 250
    watch_seconds: tuple[float, float] = (240.0, 480.0)
    """The server ends a watch after a random time in this range, so that many do not come back at once."""
    silence_seconds: float = 90.0
    """A stream without a byte for so long counts as half-open. Bookmarks come about once a minute, where the kind changes at all."""
    compare_seconds: float = 600.0
    """Between two comparisons of the whole cache with the server."""
    away_seconds: float = 1.0
    """A server that does not answer for so long may have been given another past, which has grown beyond ours by now."""
    backoff_seconds: tuple[float, float] = (0.25, 30.0)
    short_watch_seconds: float = 1.0
    """A watch that ended sooner and told nothing counts as failed."""
    kept_deletions: int = 2000


@dataclass(slots=True)
class Counts:
    """Since the start; for metrics, tests and benches."""

    lists: int = 0
    watches: int = 0
    events: int = 0
    bookmarks: int = 0
    expired: int = 0
    broken: int = 0
    """Streams that ended otherwise than by the server's clock."""
    refused: int = 0
    """Lists and watches that got an error for an answer."""
    unseen_deletions: int = 0
    """Objects that a new list no longer had, after history was lost."""
    history_restored: int = 0
    comparisons: int = 0
    drift: int = 0
    """Objects that differed although no event explains it."""


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    uid: str
    resource_version: str
    value: T


@dataclass(frozen=True, slots=True)
class Deletion(Generic[T]):
    entry: Entry[T]
    """The last state; with `is_seen` the one that the apiserver sent with the deletion, else the last that was cached."""
    is_seen: bool


class Subscription:
    """The keys that changed since it was last asked. Holds each key once, however many events there were."""

    def __init__(self, close: Callable[[Subscription], None]) -> None:
        self._dirty: set[Key] = set()
        self._news = asyncio.Event()
        self._close = close
        self._fault: BaseException | None = None

    async def changed(self) -> frozenset[Key]:
        """Waits for at least one key. Raises what ended the reflector."""
        await self._news.wait()
        if self._fault:
            raise self._fault
        self._news.clear()
        dirty, self._dirty = self._dirty, set()
        return frozenset(dirty)

    def close(self) -> None:
        self._close(self)

    def _mark(self, key: Key) -> None:
        self._dirty.add(key)
        self._news.set()

    def _end(self, fault: BaseException) -> None:
        self._fault = fault
        self._news.set()


class Reflector(Generic[T]):
    """`async with Reflector(...) as pods: await pods.synced()`. Everything happens in the loop that entered it.

    `project` gets the whole object and gives what to keep of it; it must not keep references into the object if memory matters.
    """

    def __init__(
        self,
        api: Api,
        resource: Resource,
        *,
        project: Callable[[Object], T],
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        tuning: Tuning | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.resource = resource
        self.counts = Counts()
        self.problem: ApiError | None = None
        """Why the cache does not follow at the moment; None while it does."""
        self._api = api
        self._project = project
        self._namespace = namespace
        self._selectors: dict[str, str] = {"label_selector": label_selector, "field_selector": field_selector}
        self._tuning = tuning or Tuning()
        self._rng = rng or random.Random()
        self._entries: dict[Key, Entry[T]] = {}
        self._deletions: OrderedDict[str, Deletion[T]] = OrderedDict()
        self._subscriptions: list[Subscription] = []
        self._version = ""
        """Everything up to here is in the cache; empty: unknown, list first."""
        self._compare_at = 0.0
        self._failures = 0
        self._away_since: float | None = None
        """Loop time of the first call without an answer since the server's history was last known to be ours."""
        self._synced = asyncio.Event()
        self._fault: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"reflector of {self.resource.full_name}")
        self._task.add_done_callback(self._ended)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def synced(self, *, seconds: float = 30.0) -> None:
        """Returns when the first list is complete. Raises the reason why it is not after `seconds` (RBAC, a missing CRD, no answer)."""
        try:
            async with asyncio.timeout(seconds):
                await self._synced.wait()
        except TimeoutError:
            raise self.problem or Unreachable(
                f"list {self.resource.full_name}: not complete after {seconds:.0f} s.", reason="Slow"
            ) from None
        self._check()

    @property
    def is_synced(self) -> bool:
        """The first list is complete."""
        return self._synced.is_set() and self._fault is None

    @property
    def entries(self) -> Mapping[Key, Entry[T]]:
        """The living cache, read-only: it changes under an iteration that awaits."""
        self._check()
        return MappingProxyType(self._entries)

    def get(self, name: str, namespace: str = "") -> T | None:
        self._check()
        entry = self._entries.get((namespace, name))
        return entry.value if entry else None

    def deletion(self, uid: str) -> Deletion[T] | None:
        """How the object with that uid ended, while it is among the last that were deleted."""
        return self._deletions.get(uid)

    def subscribe(self) -> Subscription:
        """Begins with every key that is there now."""
        subscription = Subscription(self._subscriptions.remove)
        self._subscriptions.append(subscription)
        for key in self._entries:
            subscription._mark(key)
        return subscription

    def _check(self) -> None:
        if self._fault:
            raise self._fault

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A fault of ours (a projection that raises) reaches every reader; nobody goes on with a cache that stands still."""
        self._fault = None if task.cancelled() else task.exception()
        if self._fault:
            self._synced.set()
            for subscription in self._subscriptions:
                subscription._end(self._fault)

    async def _run(self) -> None:
        while True:
            try:
                await self._step()
                continue
            except Expired as error:
                self._count("expired")
                self._version = ""
                failure: ApiError = error
            except ApiError as error:
                failure = error
            self.problem = failure
            self._failures += 1
            self._note_absence(failure)
            log.log(logging.INFO if self._failures == 1 else logging.WARNING, "%s", failure)
            await asyncio.sleep(self._pause(failure))

    async def _step(self) -> None:
        """One list or comparison if it is due, then one watch to its end."""
        loop = asyncio.get_running_loop()
        if self._must_read():
            await self._read_all()
            self._compare_at = loop.time() + self._tuning.compare_seconds
            self._away_since = None
        began, told = loop.time(), self.counts.events + self.counts.bookmarks
        try:
            await self._watch(max(1.0, min(self._rng.uniform(*self._tuning.watch_seconds), self._compare_at - began)))
        except Expired:
            raise
        except Unreachable as error:
            self._count("broken", error.http_status == 0)
            self._count("refused", error.http_status != 0)
            self._note_absence(error)
            is_silence = loop.time() - began >= self._tuning.silence_seconds
            if not is_silence:
                raise
        except ApiError:
            self._count("refused")
            raise
        else:
            if self._must_read():
                return
            is_short = loop.time() - began < self._tuning.short_watch_seconds
            if is_short and told == self.counts.events + self.counts.bookmarks:
                raise Unreachable(f"watch {self.resource.full_name}: ended at once.", reason="Short")
        self._well()

    def _count(self, what: str, number: int = 1) -> None:
        setattr(self.counts, what, getattr(self.counts, what) + number)
        HAPPENED.labels(self.resource.full_name, what).inc(number)

    def _well(self) -> None:
        self._failures, self.problem = 0, None

    def _note_absence(self, failure: ApiError) -> None:
        if isinstance(failure, Unreachable) and self._away_since is None:
            self._away_since = asyncio.get_running_loop().time()

    async def _is_our_history(self) -> bool:
        """Of a server that answers again. Who was away may come back with another past (a restored etcd). Raises ApiError."""
        if self._away_since is None:
            return True
        seconds = asyncio.get_running_loop().time() - self._away_since
        await self._check_history()
        if seconds >= self._tuning.away_seconds:
            self._compare_at = 0.0
        self._away_since = None
        return not self._must_read()

    def _must_read(self) -> bool:
        return not self._version or asyncio.get_running_loop().time() >= self._compare_at

    def _pause(self, failure: ApiError) -> float:
        """Seconds. The first loss of history or of a connection is no reason to wait; what repeats is."""
        asked = failure.retry_after_seconds or 0.0
        is_first = self._failures == 1 and failure.http_status in (0, 410)
        least, most = self._tuning.backoff_seconds
        own = 0.0 if is_first else min(most, least * 2.0 ** min(self._failures, 16))
        return asked + own * self._rng.uniform(0.5, 1.0)

    async def _read_all(self) -> None:
        """List page by page, then take over all at once. With a known version: the state at exactly that version, to compare.

        The version may be too old for that, or unknown after a restore: then it is an ordinary list.
        """
        is_comparison = bool(self._version)
        try:
            listed, version = await self._listed(self._version)
        except ApiError as error:
            self._count("refused")
            if not is_comparison or error.http_status not in (400, 410, 422, 504):
                raise
            is_comparison = False
            listed, version = await self._listed("")
        self._count("lists")
        self._count("comparisons", is_comparison)
        self._take_over(listed, is_exact=is_comparison)
        self._version = version
        self.problem = None  # the failures are forgotten when a watch works, too
        self._synced.set()

    async def _listed(self, at_version: str) -> tuple[dict[Key, Entry[T]], str]:
        """What is known already is kept as it is, so that two lists of a big cluster share their memory.

        Known means equal in content, too: after a restore of etcd the same version may have been given to another content.
        """
        listed: dict[Key, Entry[T]] = {}
        token = ""
        while True:
            page = await self._api.page(
                self.resource, namespace=self._namespace, limit=self._tuning.page_size, continue_token=token,
                resource_version=at_version, **self._selectors,
            )  # fmt: skip
            for thing in page.items:
                key = _key(thing)
                known, entry = self._entries.get(key), self._entry(thing)
                listed[key] = known if known is not None and known == entry else entry
            token = page.continue_token
            if not token:
                return listed, page.resource_version

    def _take_over(self, listed: dict[Key, Entry[T]], *, is_exact: bool) -> None:
        """The list becomes the cache; differences are told, and counted where no event that is yet to come can explain them."""
        before, version = self._entries, int(self._version or 0)
        self._entries = listed
        for key, entry in listed.items():
            if before.get(key) is not entry:
                self._count("drift", is_exact or 0 < int(entry.resource_version) <= version)
                self._mark(key)
        for key in before.keys() - listed.keys():
            self._count("drift", is_exact)
            self._count("unseen_deletions", not is_exact)
            self._remember_deletion(before[key], is_seen=False)
            self._mark(key)
        for key in before.keys() & listed.keys():
            if before[key].uid != listed[key].uid:
                self._remember_deletion(before[key], is_seen=False)

    async def _watch(self, seconds: float) -> None:
        self._count("watches")
        stream = self._api.watch(
            self.resource, namespace=self._namespace, resource_version=self._version, timeout_seconds=int(seconds),
            read_timeout_seconds=self._tuning.silence_seconds, **self._selectors,
        )  # fmt: skip
        async with aclosing(stream):  # type: ignore[type-var]
            async for event in stream:
                if event.kind == "OPENED":
                    if not await self._is_our_history():
                        return
                    # What happened meanwhile is on its way. The failures are forgotten when something comes.
                    self.problem = None
                else:
                    self._take(event)
                    self._well()

    def _take(self, event: Event) -> None:
        if event.kind == "BOOKMARK":
            self._count("bookmarks")
        else:
            self._count("events")
            key, entry = _key(event.object), self._entry(event.object)
            if event.kind == "DELETED":
                self._entries.pop(key, None)
                self._remember_deletion(entry, is_seen=True)
            else:
                self._entries[key] = entry
            self._mark(key)
        self._version = event.resource_version

    async def _check_history(self) -> None:
        """Forgets the version when the server is behind it: its past was replaced. Raises ApiError."""
        page = await self._api.page(self.resource, namespace=self._namespace, limit=1, **self._selectors)
        if int(page.resource_version) < int(self._version):
            log.warning(
                "The apiserver is at version %s, behind %s that it gave before: etcd was restored from an older snapshot. %s are listed again.",
                page.resource_version, self._version, self.resource.full_name,
            )  # fmt: skip
            self._count("history_restored")
            self._version = ""

    def _entry(self, thing: Object) -> Entry[T]:
        uid, version = _identity(thing)
        return Entry(uid, version, self._project(thing))

    def _remember_deletion(self, entry: Entry[T], *, is_seen: bool) -> None:
        self._deletions[entry.uid] = Deletion(entry, is_seen)
        while len(self._deletions) > self._tuning.kept_deletions:
            self._deletions.popitem(last=False)

    def _mark(self, key: Key) -> None:
        for subscription in self._subscriptions:
            subscription._mark(key)


def _key(thing: Object) -> Key:
    metadata: dict[str, Any] = thing["metadata"]
    return (metadata.get("namespace", ""), metadata["name"])


def _identity(thing: Object) -> tuple[str, str]:
    return (thing["metadata"]["uid"], thing["metadata"]["resourceVersion"])
