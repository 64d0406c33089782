"""A wire from one client to the apiserver on which a chosen request waits: what a process that is stopped amid its system call has still to say.

The client speaks plain HTTP to it (no kubeconfig of its own has a key), and it speaks to the apiserver as the cluster's administrator.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from pathlib import Path
from typing import Self

from cluster.control_plane import admin_tls
from cluster.layout import APISERVER_PORT, Layout


class HeldRequests:
    """Context manager, with a loop in a thread of its own."""

    def __init__(self, layout: Layout) -> None:
        self._tls = admin_tls(layout)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="held requests", daemon=True)
        self._wanted: re.Pattern[bytes] | None = None
        self._is_held, self._go_on = threading.Event(), asyncio.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        opening = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(opening, self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        async def close() -> None:
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def kubeconfig(self, folder: Path) -> Path:
        server = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        path = folder / "held-requests.conf"
        body = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "held", "cluster": {"server": server}}],
            "contexts": [{"name": "held", "context": {"cluster": "held", "user": ""}}],
            "current-context": "held",
            "users": [],
        }
        path.write_text(json.dumps(body))
        return path

    def hold(self, request: str) -> None:
        """The next request whose first line begins with this expression does not leave before `release`."""
        self._wanted = re.compile(request.encode())

    def wait_held(self, *, seconds: float) -> None:
        assert self._is_held.wait(seconds), f"no such request after {seconds:.0f} s: {self._wanted}"

    def release(self) -> None:
        self._loop.call_soon_threadsafe(self._go_on.set)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # either side is gone
            try:
                first = await _read(reader)
                while True:
                    if self._is_wanted(first):
                        first = await _whole(first, reader)
                        self._wanted = None
                        self._is_held.set()
                        await self._go_on.wait()
                    first = await self._exchange(first, reader, writer)
            finally:
                writer.transport.abort()

    async def _exchange(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        """Until the request that is to be held, which it returns. It leaves by another connection: nobody keeps an idle one open for as long."""
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", APISERVER_PORT, ssl=self._tls)
        answers = asyncio.create_task(_forward(far_reader, writer))
        try:
            while not self._is_wanted(first):
                far_writer.write(first)
                await far_writer.drain()
                asking = asyncio.create_task(_read(reader))
                await asyncio.wait([asking, answers], return_when=asyncio.FIRST_COMPLETED)
                if not asking.done():
                    asking.cancel()
                    await answers  # raises
                first = await asking
            return first
        finally:
            answers.cancel()
            far_writer.transport.abort()

    def _is_wanted(self, data: bytes) -> bool:
        return self._wanted is not None and self._wanted.match(data) is not None


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(await _read(reader))
        await writer.drain()


async def _whole(request: bytes, reader: asyncio.StreamReader) -> bytes:
    """With its body, which clients write after the head: a process that is stopped between the two has not said it yet."""
    while (end := request.find(b"\r\n\r\n")) < 0:
        request += await _read(reader)
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", request[:end])
    assert length is not None, request[:end]
    while len(request) < end + 4 + int(length[1]):
        request += await _read(reader)
    return request


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Raises ConnectionError at the end."""
    data = await reader.read(65536)
    if not data:
        raise ConnectionError("this side has ended")
    return data
