"""A real HTTP server for chats that does what it is told, well or badly: each request takes the next behaviour, the last one stays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Head = tuple[str, dict[str, str]]


@dataclass
class Behaviour:
    body: bytes = b""
    status: str = "200 OK"
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    """Content-Length that is claimed; absent: the true one."""
    wait: float = 0.0
    gate: asyncio.Event | None = None
    """The answer waits for it."""
    endless: bool = False
    """Sends for as long as anybody reads."""
    answers: Callable[[dict], bytes] | None = None
    """Makes the body of the request."""


def said(text: str = "hello", **more: object) -> Behaviour:
    body = {
        "model": "real-1",
        "choices": [{"message": {"role": "assistant", "content": text, **more}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }
    return Behaviour(json.dumps(body).encode())


def vectors(*rows: list[float], **more: object) -> Behaviour:
    """The answer of an embedding model; the last text's row first, as servers may."""
    data = [{"object": "embedding", "index": n, "embedding": row} for n, row in enumerate(rows)]
    body = {"object": "list", "model": "vectors-1", "data": data[::-1], "usage": {"prompt_tokens": 9}, **more}
    return Behaviour(json.dumps(body).encode())


def failed(status: str, text: str = "no", **headers: str) -> Behaviour:
    error = json.dumps({"error": {"message": text}}).encode()
    return Behaviour(error, status, {k.replace("_", "-"): v for k, v in headers.items()})


GARBAGE = Behaviour(b"<html>502 from a proxy that says 200</html>")
CUT_JSON = Behaviour(said().body[:40])
BROKEN_OFF = Behaviour(said().body[:40], length=4000)
NO_COMPLETION = Behaviour(b'{"result": "ok"}')
OVER_LONG = Behaviour(endless=True)
SLOW = Behaviour(said().body, wait=60.0)


@dataclass
class Server:
    url: str
    behaviours: list[Behaviour]
    requests: list[dict] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(h[15:]) for h in head.decode().lower().split("\r\n") if h.startswith("content-length:")
                )
                self.requests.append(json.loads(await reader.readexactly(length)))
                self.headers.append(head.decode())
                self.paths.append(head.decode().split(" ", 2)[1])
                self.at.append(asyncio.get_running_loop().time())
                number = len(self.requests) - 1
                behaviour = self.behaviours[min(number, len(self.behaviours) - 1)]
                self.under_way += 1
                self.most_under_way = max(self.most_under_way, self.under_way)
                await asyncio.sleep(behaviour.wait)
                if behaviour.gate is not None:
                    await behaviour.gate.wait()
                self.under_way -= 1
                await self._answer(behaviour, self.requests[number], writer)
                if behaviour.endless or behaviour.length is not None:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, behaviour: Behaviour, request: dict, writer: asyncio.StreamWriter) -> None:
        body = behaviour.answers(request) if behaviour.answers else behaviour.body
        headers = {"Content-Type": "application/json", **behaviour.headers}
        if not behaviour.endless:
            headers["Content-Length"] = str(len(body) if behaviour.length is None else behaviour.length)
        lines = [f"HTTP/1.1 {behaviour.status}", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()
        while behaviour.endless:
            writer.write(b'{"choices": [' + b" " * 65536)
            await writer.drain()


@asynccontextmanager
async def chat_server(*behaviours: Behaviour | Sequence[Behaviour]) -> AsyncIterator[Server]:
    server = Server("", [b for some in behaviours for b in ([some] if isinstance(some, Behaviour) else some)])
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    try:
        yield server
    finally:
        listening.close()
