"""Programs in a container that runs: `kubectl exec` over a WebSocket (subprotocol v4.channel.k8s.io, whose messages begin with a channel's number).

aiohttp, for the same reasons as httpx elsewhere (access.py): a read can be given up at any moment, and a thousand of them need no thousand threads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import aiohttp

from abruzzi.contracts.errors import AbruzziError
from abruzzi_operators.kubernetes.access import CONNECT_TIMEOUT_SECONDS, Access
from abruzzi_operators.kubernetes.errors import Denied, Unreachable, error_from_answer
from abruzzi_operators.kubernetes.resources import PODS

_PROTOCOL = "v4.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _STATUS = range(4)
_CHUNK_BYTES = 1 << 16
_SAID_BYTES = 2000


class Stream(Protocol):
    """A program's two ends. `receive` gives what it prints, empty when it has ended; both raise Unreachable when the connection breaks."""

    said: str
    """After the end: what it printed on standard error, and the runtime's reason where it could not be run or did not end well."""
    failed: bool
    """After the end: whether it could not be run, or did not end well."""

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes: ...


class Execs(Protocol):
    def open(self, namespace: str, pod: str, argv: Sequence[str]) -> AbstractAsyncContextManager[Stream]:
        """When the block ends the connection does, and with it the program's input; the program itself may go on. Raises the errors of `errors.py`."""
        ...


class RestExecs:
    """Of the first container of pods."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._tls, self._tls_version = access.tls(), access.tls_version

    @asynccontextmanager
    async def open(self, namespace: str, pod: str, argv: Sequence[str]) -> AsyncIterator[Stream]:
        doing = f"exec in pods {namespace}/{pod}"
        if self._tls_version != self._access.tls_version:
            self._tls, self._tls_version = self._access.tls(), self._access.tls_version
        url = self._access.server.rstrip("/") + PODS.path(pod, namespace=namespace, subresource="exec")
        query = [*(("command", part) for part in argv), *((end, "true") for end in ("stdin", "stdout", "stderr"))]
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT_SECONDS)
        try:
            headers = await asyncio.to_thread(self._access.headers)
        except AbruzziError as error:
            raise Denied(str(error), reason="NoCredentials") from error
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
            try:
                socket = await session.ws_connect(
                    url, params=query, headers=headers, protocols=(_PROTOCOL,), max_msg_size=0, heartbeat=30.0,
                    ssl=self._tls, server_hostname=self._access.extensions.get("sni_hostname"),
                )  # fmt: skip
            except aiohttp.WSServerHandshakeError as error:
                raise error_from_answer(error.status, error.message.encode(), doing=doing) from error
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise Unreachable(f"{doing}: {error}", reason=type(error).__name__) from error
            async with socket:
                yield _SocketStream(socket, doing)


class _SocketStream:
    def __init__(self, socket: aiohttp.ClientWebSocketResponse, doing: str) -> None:
        self._socket, self._doing = socket, doing
        self.said, self.failed = "", False
        self._ended = False

    async def send(self, data: bytes) -> None:
        try:
            for at in range(0, len(data), _CHUNK_BYTES):
                await self._socket.send_bytes(bytes((_STDIN,)) + data[at : at + _CHUNK_BYTES])
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Unreachable(f"{self._doing}: {error}", reason=type(error).__name__) from error

    async def receive(self) -> bytes:
        while not self._ended:
            message = await self._socket.receive()
            if message.type is not aiohttp.WSMsgType.BINARY:
                raise Unreachable(
                    f"{self._doing}: the connection ended before the program: {message.data}", reason="Broken"
                )
            channel, data = message.data[0], message.data[1:]
            if channel == _STDOUT and data:
                return data
            if channel == _STDERR:
                self.said = (self.said + data.decode("utf-8", "replace"))[-_SAID_BYTES:]
            if channel == _STATUS:
                status = json.loads(data or b"{}")
                self._ended, self.failed = True, status.get("status") == "Failure"
                if self.failed:
                    self.said = f"{self.said} {status.get('message', '')}".strip()
        return b""
