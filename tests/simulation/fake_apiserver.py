"""FakeApi behind real HTTP, for reads: lists and watches as an apiserver words them, and faults as a script asks for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from simulation.fake_api import FakeApi

from abruzzi_operators.kubernetes.errors import ApiError, NotServed, Unreachable
from abruzzi_operators.kubernetes.resources import Resource

Verb = Literal["list", "watch"]


@dataclass(frozen=True)
class Fault:
    """What one request gets instead of an answer. `status` 0: only the stream differs."""

    verb: Verb
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    lines: tuple[bytes, ...] = ()
    """A watch says these and not what happened …"""
    then: Literal["end", "cut", "hang"] = "end"
    """… and then ends in good order, breaks, or says nothing more."""


@dataclass(frozen=True)
class Asked:
    verb: Verb
    query: dict[str, str]
    at: float
    """By the loop's clock, in seconds."""


class FakeApiServer:
    """Async context manager. `tokens`: the bearer tokens that are good; None: everybody may read."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        self.tokens: set[str] | None = None
        self.script: deque[Fault] = deque()
        """Each is used once, by the first request of its verb."""
        self.asked: list[Asked] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def count(self, verb: Verb) -> int:
        return sum(asked.verb == verb for asked in self.asked)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._request(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client is gone, or the server is stopped
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection stays."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        target = urlsplit(head.split(" ", 2)[1])
        query = dict(parse_qsl(target.query))
        verb: Verb = "watch" if query.get("watch") == "true" else "list"
        self.asked.append(Asked(verb, query, asyncio.get_running_loop().time()))
        token = next(
            (
                line.partition(" ")[2].split()[-1]
                for line in head.splitlines()
                if line.lower().startswith("authorization:")
            ),
            "",
        )
        if self.tokens is not None and token not in self.tokens:
            return await _answer(writer, 401, _status(401, "Unauthorized", "Unauthorized"))
        fault = next((fault for fault in self.script if fault.verb == verb), None)
        if fault:
            self.script.remove(fault)
            if fault.status:
                return await _answer(writer, fault.status, fault.body, fault.headers)
        try:
            resource, namespace = self._resource(target.path)
            if verb == "watch":
                return await self._watch(writer, resource, namespace, query, fault)
            page = await self.api.page(
                resource, namespace=namespace, limit=int(query.get("limit", 0)), continue_token=query.get("continue", ""),
                resource_version=query.get("resourceVersion", ""), label_selector=query.get("labelSelector", ""),
            )  # fmt: skip
            metadata = {"resourceVersion": page.resource_version, "continue": page.continue_token}
            return await _answer(writer, 200, json.dumps({"metadata": metadata, "items": page.items}).encode())
        except NotServed:
            return await _answer(writer, 404, b"404 page not found\n")
        except Unreachable:
            return False  # FakeApi broke the streams: the connection ends without an end
        except ApiError as error:
            return await _answer(writer, error.http_status, _status(error.http_status, error.reason, error.message))

    async def _watch(
        self,
        writer: asyncio.StreamWriter,
        resource: Resource,
        namespace: str | None,
        query: dict[str, str],
        fault: Fault | None,
    ) -> bool:
        version = query["resourceVersion"]
        await self.api.open_watch(resource, version)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        stream = self.api.watch(
            resource, namespace=namespace, resource_version=version, timeout_seconds=int(query["timeoutSeconds"]),
            label_selector=query.get("labelSelector", ""),
        )  # fmt: skip
        async with aclosing(stream if fault is None else _scripted(fault)) as events:  # type: ignore[type-var]
            async for event in events:
                if not isinstance(event, bytes) and event.kind == "OPENED":
                    continue  # the head of the answer says so
                line = event if isinstance(event, bytes) else _line(event.kind, event.object)
                writer.write(b"%x\r\n%s\r\n" % (len(line), line))
                await writer.drain()
        if fault and fault.then == "cut":
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    def _resource(self, path: str) -> tuple[Resource, str | None]:
        parts = path.strip("/").split("/")
        namespace = parts[parts.index("namespaces") + 1] if "namespaces" in parts[:-1] else None
        for resource in self.api.served.values():
            if path == resource.path(namespace=namespace if resource.namespaced else None):
                return resource, namespace
        raise NotServed(path)


async def _scripted(fault: Fault) -> Any:
    for line in fault.lines:
        yield line
    if fault.then == "hang":
        await asyncio.Event().wait()


async def _answer(
    writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict[str, str] | None = None
) -> bool:
    lines = "".join(f"{key}: {value}\r\n" for key, value in (headers or {}).items())
    writer.write(
        f"HTTP/1.1 {status} Fault\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode()
        + body
    )
    with contextlib.suppress(ConnectionError):
        await writer.drain()
    return True


def _status(code: int, reason: str, message: str) -> bytes:
    return json.dumps(
        {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": message}
    ).encode()


def _line(kind: str, thing: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": thing}).encode() + b"\n"
