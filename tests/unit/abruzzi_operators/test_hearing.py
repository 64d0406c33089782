"""Since when the API has been heard: outages and slow answers begin anew."""

from __future__ import annotations

import httpx
import pytest

from abruzzi_operators.controller.hearing import STALE_SECONDS, Hearing


class Api:
    """Answers as a test says, after as long as it says."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.status: int | None = 200
        self.takes_seconds = 0.0
        self.hearing = Hearing("http://api/", now=lambda: self.now)
        self.client = httpx.AsyncClient(transport=httpx.MockTransport(self.answer))

    def answer(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/readyz"
        self.now += self.takes_seconds
        if self.status is None:
            raise httpx.ConnectError("refused")
        return httpx.Response(self.status)

    async def look(self) -> float | None:
        await self.hearing.look(self.client)
        return self.hearing.since


async def test_it_is_heard_since_its_first_answer() -> None:
    api = Api()
    assert api.hearing.since is None
    assert await api.look() == 1000.0
    api.now += 1
    assert await api.look() == 1000.0


@pytest.mark.parametrize("status", [None, 503])
async def test_an_outage_begins_anew(status: int | None) -> None:
    api = Api()
    await api.look()
    api.now, api.status = 1001.0, status
    assert await api.look() is None
    api.now, api.status = 1009.0, 200
    assert await api.look() == 1009.0


async def test_an_answer_that_takes_long_is_an_outage_while_it_is_awaited_and_begins_anew() -> None:
    api = Api()
    await api.look()
    api.now += STALE_SECONDS
    assert api.hearing.since is None, "whoever asks while the answer is awaited"
    api.takes_seconds = 1.0
    assert await api.look() == 1000.0 + STALE_SECONDS + 1.0
