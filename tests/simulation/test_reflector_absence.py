"""A server that was away and comes back with another past, after any time: its versions may be behind ours, or beyond them again."""

from __future__ import annotations

import asyncio
import random

import pytest
from simulation.fake_api import FakeApi
from simulation.virtual_time import run_virtual

from abruzzi_operators.kubernetes.errors import ApiError, Unreachable
from abruzzi_operators.kubernetes.reflector import Reflector, Tuning
from abruzzi_operators.kubernetes.resources import CONFIG_MAPS, Object

AWAY = (0.01, 0.3, 1.0, 2.0, 3.0, 4.0, 4.9, 5.5, 6.0, 7.0, 9.0, 12.0, 20.0, 60.0)
"""Seconds. Between the tries of a reader that backs off, too."""
SETTLED_SECONDS = 45.0
"""The longest pause and a little: less than the silence after which a stream counts as half-open, and than the time between comparisons."""
REFUSED = Unreachable("connection refused")
PROXY = Unreachable("no server is available", http_status=503)


def text(thing: Object) -> str:
    return thing["data"]["a"]


async def put(api: FakeApi, name: str, value: str) -> None:
    """By somebody who reaches the server before the reader does."""
    down, api.down = api.down, None
    await api.apply(CONFIG_MAPS, CONFIG_MAPS.new(name, "default", data={"a": value}))
    api.down = down


async def live(seed: int, away: float, *, grows: int, refusal: ApiError) -> tuple[dict[str, str], dict[str, str]]:
    """(what the reader holds, what is there)."""
    api = FakeApi(now=lambda: 0.0)
    await put(api, "kept", "1")
    snapshot = api.snapshot()
    for number in range(5):
        await put(api, "forgotten", str(number))
    async with Reflector(api, CONFIG_MAPS, project=text, rng=random.Random(seed), tuning=Tuning()) as reflector:
        await reflector.synced()
        await asyncio.sleep(30.0)
        api.fail(refusal)
        await asyncio.sleep(away)
        api.restore(snapshot)
        for number in range(grows):
            await put(api, "grown", str(number))
        api.fail(None)
        await asyncio.sleep(SETTLED_SECONDS)
        held = {name: entry.value for (_, name), entry in reflector.entries.items()}
        return held, {thing["metadata"]["name"]: text(thing) for thing in await api.list(CONFIG_MAPS)}


@pytest.mark.parametrize("refusal", [REFUSED, PROXY], ids=["refused", "503"])
@pytest.mark.parametrize("away", AWAY)
def test_a_past_that_is_behind_ours_is_noticed_whenever_the_server_comes_back(away: float, refusal: ApiError) -> None:
    for seed in range(20):
        held, there = run_virtual(live(seed, away, grows=1, refusal=refusal))
        assert held == there == {"kept": "1", "grown": "0"}, seed


@pytest.mark.parametrize("refusal", [REFUSED, PROXY], ids=["refused", "503"])
@pytest.mark.parametrize("away", [away for away in AWAY if away >= Tuning().away_seconds])
def test_a_past_that_has_grown_beyond_ours_is_noticed_after_an_absence_of_seconds(
    away: float, refusal: ApiError
) -> None:
    for seed in range(20):
        held, there = run_virtual(live(seed, away, grows=30, refusal=refusal))
        assert held == there == {"kept": "1", "grown": "29"}, seed
