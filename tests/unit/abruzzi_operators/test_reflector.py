"""The reflector over real HTTP: its contract, and faults that only a script can bring."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

pytest.register_assert_rewrite("simulation.reflector_contract")
from simulation.fake_api import FakeApi  # noqa: E402
from simulation.fake_apiserver import FakeApiServer, Fault  # noqa: E402
from simulation.reflector_contract import (  # noqa: E402
    QUICK,
    Place,
    ReflectorContract,
    cached,
    kubeconfig,
    text,
    until,
    until_true,
)
from simulation.tcp_proxy import TcpProxy  # noqa: E402

from abruzzi_operators.kubernetes.access import Access  # noqa: E402
from abruzzi_operators.kubernetes.errors import Denied, NotServed  # noqa: E402
from abruzzi_operators.kubernetes.reflector import Reflector, Tuning  # noqa: E402
from abruzzi_operators.kubernetes.resources import CONFIG_MAPS, RAY_JOBS, Object  # noqa: E402
from abruzzi_operators.kubernetes.rest_api import RestApi  # noqa: E402

STATUS_410 = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version: 1 (9)"}


class ScriptedPlace(Place):
    def __init__(self, server: FakeApiServer, proxy: TcpProxy, folder: Path) -> None:
        super().__init__(server.api, "default", proxy, folder / "token")
        self.server = server
        self._kubeconfig = kubeconfig(
            folder / "config", server=f"http://127.0.0.1:{proxy.port}", token_file=self.token_file
        )

    def kubeconfig(self) -> Path:
        return self._kubeconfig

    async def compact(self) -> None:
        self.server.api.compact()

    async def restart(self) -> None:
        await self.server.stop()
        await self.server.start()

    async def snapshot(self) -> object:
        return self.server.api.snapshot()

    async def restore(self, snapshot: object) -> None:
        self.server.api.restore(snapshot)

    async def replace_token(self) -> str:
        self.server.tokens = {"second"}
        return "second"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[ScriptedPlace]:
    async with FakeApiServer(FakeApi()) as server, TcpProxy(server.port) as proxy:
        (tmp_path / "token").write_text("first")
        server.tokens = {"first"}
        yield ScriptedPlace(server, proxy, tmp_path)


class TestReflectorOverHttp(ReflectorContract):
    pass


def line(kind: str, thing: Object) -> bytes:
    return json.dumps({"type": kind, "object": thing}).encode() + b"\n"


async def break_stream(place: ScriptedPlace, *faults: Fault) -> None:
    """The next requests of a following reflector meet these faults."""
    async with asyncio.timeout(240):
        while place.server.api.watchers != 1:
            await asyncio.sleep(0.005)
    place.server.script.extend(faults)
    place.server.api.break_watches()


async def test_410_as_an_error_event_inside_a_good_stream_is_a_new_list(place: ScriptedPlace) -> None:
    await place.put("one", "1")
    async with place.following() as reflector:
        await break_stream(place, Fault("watch", lines=(line("ERROR", STATUS_410),)))
        await place.put("one", "2")
        await until_true(place, reflector)
        assert (reflector.counts.expired, reflector.counts.lists) == (1, 2)


async def test_410_as_the_answer_is_a_new_list(place: ScriptedPlace) -> None:
    await place.put("one", "1")
    async with place.following() as reflector:
        await break_stream(place, Fault("watch", status=410, body=json.dumps(STATUS_410).encode()))
        await place.put("one", "2")
        await until_true(place, reflector)
        assert (reflector.counts.expired, reflector.counts.lists) == (1, 2)


async def test_a_continue_token_that_expires_between_pages_begins_the_list_again(place: ScriptedPlace) -> None:
    for number in range(8):
        await place.put(f"one-{number}", "1")
    place.server.script.append(Fault("list", status=410, body=json.dumps(STATUS_410).encode()))
    async with place.following() as reflector:
        assert len(cached(reflector)) == 8


async def test_endless_410_is_asked_ever_more_slowly(place: ScriptedPlace) -> None:
    gone = Fault("watch", status=410, body=json.dumps(STATUS_410).encode())
    place.server.script.extend([gone] * 5)
    async with place.following(Tuning(page_size=3, backoff_seconds=(0.05, 0.4))) as reflector:
        await until(lambda: place.server.count("watch") == 6, reflector)
        asked = [asked.at for asked in place.server.asked if asked.verb == "watch"]
        waits = [after - before for before, after in itertools.pairwise(asked)]
        assert waits[-1] > 0.2
        await place.put("one", "1")
        await until_true(place, reflector)


@pytest.mark.parametrize("then", ["end", "cut"])
async def test_a_stream_that_ends_inside_an_event_is_taken_up_from_the_last_whole_one(
    place: ScriptedPlace, then: str
) -> None:
    await place.put("one", "1")
    async with place.following() as reflector:
        truncated = line("MODIFIED", CONFIG_MAPS.new("one", "default", data={"a": "torn"}))[:-30]
        await break_stream(place, Fault("watch", lines=(truncated,), then=then))  # type: ignore[arg-type]
        await place.put("one", "2")
        await until_true(place, reflector)
        assert reflector.counts.lists == 1
        assert reflector.counts.broken >= 2


@pytest.mark.parametrize(
    "nonsense", [b"<html>bad gateway</html>\n", b"[]\n", b'{"type":"ADDED"}\n', b"\xff\xfe\n", b"null\n"]
)
async def test_a_line_that_is_no_event_is_not_taken_for_one(place: ScriptedPlace, nonsense: bytes) -> None:
    await place.put("one", "1")
    async with place.following() as reflector:
        await break_stream(place, Fault("watch", lines=(nonsense,)))
        await place.put("one", "2")
        await until_true(place, reflector)
        assert reflector.counts.lists == 1


async def test_429_is_waited_for_as_long_as_the_server_asks(place: ScriptedPlace) -> None:
    await place.put("one", "1")
    async with place.following() as reflector:
        await until(lambda: place.server.count("watch") == 1, reflector)
        await break_stream(place, Fault("watch", status=429, headers={"Retry-After": "1"}))
        await place.put("one", "2")
        await until_true(place, reflector)
        refused, again = [asked.at for asked in place.server.asked if asked.verb == "watch"][1:3]
        assert again - refused >= 1.0
        assert reflector.counts.lists == 1


async def test_an_apiserver_that_answers_500_for_a_while_is_asked_ever_more_slowly(place: ScriptedPlace) -> None:
    await place.put("one", "1")
    async with place.following(Tuning(backoff_seconds=(0.05, 0.4), away_seconds=60.0)) as reflector:
        await break_stream(place, *[Fault("watch", status=500, body=b"etcdserver: request timed out")] * 5)
        await place.put("one", "2")
        await until_true(place, reflector)
        assert reflector.counts.refused == 5
        asked = [asked.at for asked in place.server.asked if asked.verb == "watch"][1:]
        assert asked[-1] - asked[-2] > 0.2
        assert reflector.counts.lists == 1


async def test_a_watch_that_always_ends_at_once_does_not_spin(place: ScriptedPlace) -> None:
    async with place.following(Tuning(backoff_seconds=(0.05, 0.4), short_watch_seconds=0.5)) as reflector:
        await break_stream(place, *[Fault("watch")] * 4)
        await until(lambda: place.server.count("watch") >= 6, reflector)
        asked = [asked.at for asked in place.server.asked if asked.verb == "watch"][1:]
        assert asked[-1] - asked[0] > 0.3


async def test_a_missing_crd_is_named_and_the_cache_begins_when_it_comes(place: ScriptedPlace) -> None:
    served = place.server.api.served.pop(RAY_JOBS.full_name)
    async with (
        RestApi(Access(kubeconfig=place.kubeconfig())) as api,
        Reflector(api, RAY_JOBS, project=dict, tuning=QUICK) as reflector,
    ):
        await until(lambda: reflector.problem is not None, reflector)
        with pytest.raises(NotServed, match=r"rayjobs\.ray\.io"):
            await reflector.synced(seconds=0.01)
        place.server.api.served[RAY_JOBS.full_name] = served
        await reflector.synced()
        assert reflector.problem is None


async def test_denied_access_is_named_and_the_cache_begins_when_it_is_given(place: ScriptedPlace) -> None:
    place.server.tokens = {"another"}
    async with (
        RestApi(Access(kubeconfig=place.kubeconfig())) as api,
        Reflector(api, CONFIG_MAPS, project=text, tuning=QUICK) as reflector,
    ):
        await until(lambda: reflector.problem is not None, reflector)
        with pytest.raises(Denied, match="401"):
            await reflector.synced(seconds=0.01)
        place.server.tokens = {"first"}
        await reflector.synced()


def counted_drift() -> float:
    """As Prometheus reads it."""
    return REGISTRY.get_sample_value("abruzzi_reflector_total", {"resource": "configmaps", "what": "drift"}) or 0.0


async def test_an_event_that_was_lost_is_found_by_comparing_and_counted(place: ScriptedPlace) -> None:
    before = counted_drift()
    for number in range(7):
        await place.put(f"one-{number}", "1")
    async with place.following(Tuning(page_size=3, compare_seconds=1.0, watch_seconds=(1.0, 1.0))) as reflector:
        place.server.api.forget_silently(CONFIG_MAPS, "one-3", "default")
        await place.put("later", "1")  # the watch goes on beyond the lost event
        await until(lambda: reflector.counts.drift == 1, reflector)
        assert counted_drift() == before + 1
        assert cached(reflector) == await place.truth()
        deletions = [deletion for uid in reflector._deletions if (deletion := reflector.deletion(uid))]
        assert [deletion.is_seen for deletion in deletions] == [False]


async def test_a_burst_is_taken_in_whole_while_a_slow_reader_holds_only_keys(place: ScriptedPlace) -> None:
    async with place.following() as reflector:
        changes = reflector.subscribe()
        for round_number in range(30):
            for number in range(100):
                await place.put(f"pod-{number}", str(round_number))
        await until_true(place, reflector)
        assert reflector.counts.events == 3000
        assert len(await changes.changed()) == 100
        assert reflector.counts.lists == 1


async def test_only_so_many_deletions_are_remembered(place: ScriptedPlace) -> None:
    async with place.following(Tuning(kept_deletions=10)) as reflector:
        for number in range(50):
            await place.put(f"pod-{number}", "1")
            await place.drop(f"pod-{number}")
        await until(lambda: reflector.counts.events == 100, reflector)
        assert len(reflector._deletions) == 10


async def test_a_projection_that_fails_reaches_every_reader(place: ScriptedPlace) -> None:
    def picky(thing: Object) -> str:
        return thing["data"]["b"]

    async with RestApi(Access(kubeconfig=place.kubeconfig())) as api:
        reflector = await Reflector(api, CONFIG_MAPS, project=picky, tuning=QUICK).__aenter__()
        changes = reflector.subscribe()
        await reflector.synced()
        await place.put("one", "1")
        with pytest.raises(KeyError):
            await changes.changed()
        with pytest.raises(KeyError):
            reflector.get("one", "default")
        with pytest.raises(KeyError):
            await reflector.__aexit__()


async def test_it_stops_at_once_in_the_middle_of_a_silent_stream(place: ScriptedPlace) -> None:
    async with asyncio.timeout(50.0):
        async with place.following(Tuning(silence_seconds=60.0)) as reflector:
            await until(lambda: reflector.counts.watches == 1, reflector)
    assert reflector.counts.watches == 1
