"""A program in a container over a WebSocket: how it ended, and that a connection which ends before it is told apart."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
from aiohttp import web

from abruzzi_operators.kubernetes.access import Access
from abruzzi_operators.kubernetes.errors import Unreachable
from abruzzi_operators.kubernetes.execs import RestExecs, Stream


class StubAccess:
    tls_version = 0
    extensions: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, server: str) -> None:
        self.server = server

    def tls(self) -> bool:
        return True

    def headers(self) -> dict[str, str]:
        return {}


@asynccontextmanager
async def program(*messages: bytes) -> AsyncIterator[Stream]:
    """What the apiserver sends before it closes the connection."""

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
        await socket.prepare(request)
        for message in messages:
            await socket.send_bytes(message)
        await socket.close()
        return socket

    app = web.Application()
    app.router.add_get("/api/v1/namespaces/n/pods/p/exec", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        access = StubAccess(f"http://127.0.0.1:{runner.addresses[0][1]}")
        async with RestExecs(cast(Access, access)).open("n", "p", ["true"]) as stream:
            yield stream
    finally:
        await runner.cleanup()


def status(**said: str) -> bytes:
    return b"\x03" + json.dumps(said).encode()


async def test_how_a_program_ended_is_known_when_its_output_has_ended() -> None:
    async with program(b"\x01out", b"\x02err", status(status="Success")) as stream:
        assert [await stream.receive() for _ in range(3)] == [b"out", b"", b""]
        assert (stream.said, stream.failed) == ("err", False)
    async with program(status(status="Failure", message="exit code 137")) as stream:
        assert await stream.receive() == b""
        assert (stream.said, stream.failed) == ("exit code 137", True)


async def test_a_connection_that_ends_before_its_program_is_no_end_of_the_program() -> None:
    async with program(b"\x01out") as stream:
        assert await stream.receive() == b"out"
        with pytest.raises(Unreachable, match="ended before the program"):
            await stream.receive()
