"""How a reflector follows a server through everything that goes wrong between them: the same suite over the scripted server and over a real
kube-apiserver with its etcd. Reader and server are joined by a TcpProxy; the writer goes around it.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from simulation.tcp_proxy import TcpProxy

from abruzzi_operators.kubernetes.access import Access
from abruzzi_operators.kubernetes.api import Api
from abruzzi_operators.kubernetes.reflector import Reflector, Tuning
from abruzzi_operators.kubernetes.resources import CONFIG_MAPS, Object
from abruzzi_operators.kubernetes.rest_api import RestApi

QUICK = Tuning(
    page_size=3, silence_seconds=0.5, backoff_seconds=(0.02, 0.2), watch_seconds=(2.0, 4.0), short_watch_seconds=0.2,
    away_seconds=60.0,
)  # fmt: skip
"""No absence of these tests is one after which all is compared: then the counts would depend on the machine."""


def text(thing: Object) -> str:
    """The projection of these tests."""
    return thing["data"]["a"]


class Place(ABC):
    """A server with a writer beside it, and a reader behind the proxy."""

    def __init__(self, writer: Api, namespace: str, proxy: TcpProxy, token_file: Path) -> None:
        self.writer = writer
        self.namespace = namespace
        self.proxy = proxy
        self.token_file = token_file

    @abstractmethod
    def kubeconfig(self) -> Path:
        """For the reader: through the proxy, with the token of `token_file`."""

    @abstractmethod
    async def compact(self) -> None: ...

    @abstractmethod
    async def restart(self) -> None: ...

    @abstractmethod
    async def snapshot(self) -> object: ...

    @abstractmethod
    async def restore(self, snapshot: object) -> None: ...

    @abstractmethod
    async def replace_token(self) -> str:
        """The token of the file is worth nothing from now on; returns the new one."""

    @contextlib.asynccontextmanager
    async def following(self, tuning: Tuning = QUICK, **more: Any) -> AsyncIterator[Reflector[str]]:
        async with (
            RestApi(Access(kubeconfig=self.kubeconfig())) as api,
            Reflector(api, CONFIG_MAPS, project=text, namespace=self.namespace, tuning=tuning, **more) as reflector,
        ):
            await reflector.synced()
            yield reflector

    async def put(self, name: str, value: str) -> None:
        await self.writer.apply(CONFIG_MAPS, CONFIG_MAPS.new(name, self.namespace, data={"a": value}))

    async def drop(self, name: str) -> None:
        await self.writer.delete(CONFIG_MAPS, name, namespace=self.namespace)

    async def truth(self) -> dict[str, str]:
        found = await self.writer.list(CONFIG_MAPS, namespace=self.namespace)
        return {thing["metadata"]["name"]: text(thing) for thing in found}


def cached(reflector: Reflector[str]) -> dict[str, str]:
    return {name: entry.value for (_, name), entry in reflector.entries.items()}


async def until(condition: Callable[[], bool], reflector: Reflector[str], *, seconds: float = 240.0) -> None:
    """Polls, because what is waited for is often that nothing more happens than this."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"not true after {seconds} s: {cached(reflector)}, {reflector.counts}, {reflector.problem}")


async def until_true(place: Place, reflector: Reflector[str], *, seconds: float = 240.0) -> None:
    truth = await place.truth()
    await until(lambda: cached(reflector) == truth, reflector, seconds=seconds)


class ReflectorContract:
    async def test_it_lists_page_by_page_and_follows_every_change(self, place: Place) -> None:
        for number in range(8):
            await place.put(f"old-{number}", "1")
        async with place.following() as reflector:
            assert cached(reflector) == await place.truth()
            uid = reflector.entries[(place.namespace, "old-0")].uid
            await place.put("new", "1")
            await place.put("old-1", "2")
            await place.drop("old-0")
            await until_true(place, reflector)
            assert reflector.counts.lists == 1
            assert reflector.counts.events >= 3
            deletion = reflector.deletion(uid)
            assert deletion is not None
            assert (deletion.entry.value, deletion.is_seen) == ("1", True)

    async def test_a_reader_gets_each_changed_key_once_however_many_events_there_were(self, place: Place) -> None:
        await place.put("one", "0")
        async with place.following() as reflector:
            changes = reflector.subscribe()
            assert await changes.changed() == {(place.namespace, "one")}, "it begins with what is there"
            for number in range(1, 20):
                await place.put("one", str(number))
            await place.put("two", "0")
            await until_true(place, reflector)
            assert await changes.changed() == {(place.namespace, "one"), (place.namespace, "two")}
            assert reflector.get("one", place.namespace) == "19"

    async def test_a_broken_connection_costs_no_event_and_no_new_list(self, place: Place) -> None:
        await place.put("one", "1")
        async with place.following() as reflector:
            place.proxy.cut()
            await place.put("one", "2")
            await place.put("two", "1")
            await place.drop("one")
            await until(lambda: reflector.problem is not None, reflector)
            place.proxy.heal()
            await until_true(place, reflector)
            await until(lambda: reflector.problem is None, reflector)
            assert reflector.counts.lists == 1
            assert reflector.counts.broken >= 1

    async def test_a_half_open_connection_is_given_up_and_costs_no_event(self, place: Place) -> None:
        await place.put("one", "1")
        async with place.following() as reflector:
            await until(lambda: reflector.counts.watches == 1, reflector)
            place.proxy.freeze()
            await place.put("one", "2")
            await until(lambda: reflector.counts.broken >= 1, reflector)
            assert cached(reflector) == {"one": "1"}
            place.proxy.heal()
            await until_true(place, reflector)
            assert reflector.counts.lists == 1

    async def test_history_that_was_compacted_meanwhile_is_listed_again_and_deletions_are_told(
        self, place: Place
    ) -> None:
        for name in ("stays", "goes", "is-replaced"):
            await place.put(name, "1")
        async with place.following() as reflector:
            await until(lambda: reflector.counts.watches == 1, reflector)
            uids = {name: reflector.entries[(place.namespace, name)].uid for name in ("goes", "is-replaced")}
            changes = reflector.subscribe()
            await changes.changed()
            place.proxy.cut()
            await place.drop("goes")
            await place.drop("is-replaced")
            await place.put("is-replaced", "2")
            await place.put("new", "1")
            await place.compact()
            place.proxy.heal()
            await until_true(place, reflector)
            assert reflector.counts.expired >= 1
            assert reflector.counts.unseen_deletions == 1
            told = await changes.changed()
            assert told == {(place.namespace, name) for name in ("goes", "is-replaced", "new")}
            for uid in uids.values():
                deletion = reflector.deletion(uid)
                assert deletion is not None
                assert not deletion.is_seen

    async def test_a_restarted_apiserver_is_followed_on(self, place: Place) -> None:
        await place.put("one", "1")
        async with place.following() as reflector:
            await until(lambda: reflector.counts.watches == 1, reflector)
            await place.restart()
            await place.put("one", "2")
            await place.put("two", "1")
            await until_true(place, reflector)
            assert reflector.counts.drift == 0

    async def test_an_etcd_that_was_restored_from_an_older_snapshot_is_noticed(self, place: Place) -> None:
        await place.put("kept", "1")
        await place.put("deleted-later", "1")
        snapshot = await place.snapshot()
        for number in range(30):
            await place.put("undone", str(number))
        await place.drop("deleted-later")
        await place.put("kept", "2")
        async with place.following() as reflector:
            await until(lambda: reflector.counts.watches == 1, reflector)
            await place.restore(snapshot)
            await place.put("after", "1")  # with a version that was given out before
            await until_true(place, reflector)
            assert cached(reflector) == {"kept": "1", "deleted-later": "1", "after": "1"}
            assert reflector.counts.history_restored == 1

    async def test_an_etcd_that_was_restored_and_has_grown_beyond_us_while_it_was_away_is_noticed(
        self, place: Place
    ) -> None:
        """Its versions alone tell nothing then: ours was given out again, to something else."""
        await place.put("kept", "1")
        snapshot = await place.snapshot()
        await place.put("undone", "1")
        tuning = Tuning(page_size=3, away_seconds=0.0, backoff_seconds=(0.01, 0.1), silence_seconds=5.0)
        async with place.following(tuning) as reflector:
            await until(lambda: reflector.counts.watches == 1, reflector)
            place.proxy.cut()
            await until(lambda: reflector._failures > 1, reflector)
            await place.restore(snapshot)
            for number in range(30):
                await place.put("grown", str(number))
            place.proxy.heal()
            await until_true(place, reflector)
            assert cached(reflector) == {"kept": "1", "grown": "29"}

    async def test_a_rewritten_token_file_is_read_when_the_old_token_is_refused(self, place: Place) -> None:
        await place.put("one", "1")
        async with place.following() as reflector:
            await until(lambda: reflector.counts.watches == 1, reflector)
            place.token_file.write_text(await place.replace_token())
            place.proxy.cut()
            await place.put("one", "2")
            place.proxy.heal()
            await until_true(place, reflector)
            assert reflector.counts.lists == 1, "401 is no loss of history"

    async def test_comparing_with_the_server_finds_no_drift_where_there_is_none(self, place: Place) -> None:
        """Writes go on all the time; a comparison with the newest list would find differences that are on their way."""
        tuning = Tuning(
            page_size=3, compare_seconds=0.0, watch_seconds=(1.0, 1.0), backoff_seconds=(0.01, 0.1), silence_seconds=5.0
        )
        for number in range(5):
            await place.put(f"old-{number}", "1")
        async with place.following(tuning) as reflector:
            number = 0
            while reflector.counts.comparisons < 3:
                await place.put(f"old-{number % 5}", str(number))
                await place.put(f"new-{number % 7}", "1")
                await place.drop(f"new-{number % 7}")
                number += 1
            await until_true(place, reflector)
            assert reflector.counts.drift == 0
            assert reflector.counts.unseen_deletions == 0


def kubeconfig(path: Path, *, server: str, token_file: Path, authority: Path | None = None) -> Path:
    cluster = {"server": server, **({"certificate-authority": str(authority)} if authority else {})}
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}], "users": [{"name": "reader", "user": {"tokenFile": str(token_file)}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "reader"}}],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(document))
    return path
