"""A client of the Model Context Protocol (revision 2025-03-26) over the standard streams of a process, in raw JSON-RPC 2.0.

It trusts nothing that the server says: time, message size and noise are bounded, and each kind of misbehaviour has its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.sandbox.box import WORKSPACE
from abruzzi_jobs.synthesis.schemas import schema_fault, value_fault

PROTOCOL = "2025-03-26"
_METHOD_NOT_FOUND, _INVALID_PARAMS = -32601, -32602
_CHUNK_BYTES = 1 << 16
_STDERR_KEPT_BYTES = 4096
_PAGES_AT_MOST = 200

FaultKind = Literal["crashed", "hung", "flooded", "garbled", "lied", "refused"]


@dataclass(frozen=True, kw_only=True)
class Patience:
    """`start_seconds` until the answer to `initialize`, `answer_seconds` until any other; a message of more than `message_bytes`, or more than
    `noise_lines` lines that are no JSON-RPC, is a flood."""

    start_seconds: float = 60.0
    answer_seconds: float = 30.0
    message_bytes: int = 4 << 20
    noise_lines: int = 100


class ServerFault(AbruzziError):
    """`kind`: `crashed` its process ended, `hung` no answer in time, `flooded` more output than allowed, `garbled` not the protocol,
    `lied` what it does is not what its schemas say, `refused` an error answer to a fair request."""

    def __init__(self, kind: FaultKind, message: str, *, stderr: str = "") -> None:
        super().__init__(f"server_{kind}", message, status=502)
        self.kind = kind
        self.stderr = stderr


@dataclass(frozen=True, kw_only=True)
class ToolAnswer:
    """`failed`: the tool says that it could not do it. `text`: all its text parts."""

    text: str
    structured: Any
    failed: bool
    seconds: float


@dataclass(kw_only=True)
class ListedTools:
    """Specs as the server gave them, and those set aside: (name, why)."""

    specs: list[dict[str, Any]] = field(default_factory=list)
    set_aside: list[tuple[str, str]] = field(default_factory=list)


class Session:
    """Requests one after another. Made by `session`."""

    def __init__(self, process: asyncio.subprocess.Process, patience: Patience) -> None:
        self._process = process
        self._patience = patience
        self._ids = itertools.count(1)
        self._buffer = bytearray()
        self._noise = 0
        self._stderr = bytearray()
        self._draining = asyncio.create_task(self._drain())
        self._output_schemas: dict[str, Any] = {}
        self._input_schemas: dict[str, Any] = {}
        self.about: dict[str, Any] = {}

    async def initialize(self) -> dict[str, Any]:
        """What the server says of itself: {protocolVersion, capabilities, serverInfo, …}."""
        client = {"name": "abruzzi", "version": "1"}
        asked = {"protocolVersion": PROTOCOL, "capabilities": {"roots": {}}, "clientInfo": client}
        result = await self._request("initialize", asked, self._patience.start_seconds)
        if not isinstance(result.get("protocolVersion"), str):
            raise self._fault("garbled", "its answer to initialize names no protocolVersion")
        self.about = result
        await self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return result

    async def list_tools(self) -> ListedTools:
        """All pages. A tool without a usable name or schema is set aside, the rest is kept."""
        listed = ListedTools()
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(_PAGES_AT_MOST):
            page = await self._request(
                "tools/list", {"cursor": cursor} if cursor else {}, self._patience.answer_seconds
            )
            tools = page.get("tools")
            if not isinstance(tools, list):
                raise self._fault("garbled", "its answer to tools/list has no list of tools")
            for tool in tools:
                self._take(tool, listed)
            cursor = page.get("nextCursor")
            if cursor is None:
                return listed
            if not isinstance(cursor, str) or cursor in seen:
                raise self._fault("lied", f"its list of tools goes in circles: cursor {cursor!r} again")
            seen.add(cursor)
        raise self._fault("flooded", f"its list of tools has more than {_PAGES_AT_MOST} pages")

    async def call(self, name: str, arguments: dict[str, Any]) -> ToolAnswer:
        """Raises AbruzziError `invalid_arguments` when they do not fit the listed schema: then nothing was sent."""
        if name not in self._input_schemas:
            raise AbruzziError("unknown_tool", f"The server listed no tool {name!r}.")
        if fault := value_fault(arguments, self._input_schemas[name]):
            raise AbruzziError("invalid_arguments", f"{name}: {fault}", status=422)
        began = time.monotonic()
        asked = {"name": name, "arguments": arguments}
        result = await self._request("tools/call", asked, self._patience.answer_seconds, tool=name)
        failed = result.get("isError", False)
        content = result.get("content", [])
        if not isinstance(failed, bool) or not _is_content(content):
            raise self._fault("garbled", f"its answer to {name} is no tool result")
        structured = result.get("structuredContent")
        promised = self._output_schemas.get(name)
        if promised is not None and not failed:
            fault = "no structuredContent" if structured is None else value_fault(structured, promised)
            if fault:
                raise self._fault("lied", f"the answer of {name} breaks its outputSchema: {fault}")
        text = "\n".join(str(part["text"]) for part in content if part["type"] == "text")
        return ToolAnswer(text=text, structured=structured, failed=failed, seconds=time.monotonic() - began)

    def _take(self, tool: Any, listed: ListedTools) -> None:
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(name, str) or not name:
            listed.set_aside.append((repr(name), "it has no name"))
            return
        if name in self._input_schemas:
            listed.set_aside.append((name, "listed twice"))
            return
        fault = schema_fault(tool.get("inputSchema"), of_object=True)
        if not fault and tool.get("outputSchema") is not None:
            fault = schema_fault(tool["outputSchema"], of_object=True)
        if fault:
            listed.set_aside.append((name, fault))
            return
        self._input_schemas[name] = tool["inputSchema"]
        self._output_schemas[name] = tool.get("outputSchema")
        listed.specs.append(tool)

    async def _request(self, method: str, params: dict[str, Any], seconds: float, tool: str = "") -> dict[str, Any]:
        number = next(self._ids)
        what = f"{method} {tool}".strip()
        try:
            async with asyncio.timeout(seconds):
                await self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
                answer = await self._answer(number, what)
        except TimeoutError:
            raise self._fault("hung", f"no answer to {what} in {seconds:g} s") from None
        error = answer.get("error")
        if error is not None:
            code = error.get("code") if isinstance(error, dict) else None
            said = str(error.get("message") if isinstance(error, dict) else error)[:300]
            if tool and code == _INVALID_PARAMS:
                raise self._fault("lied", f"{what}: it refuses arguments that its inputSchema allows: {said}")
            raise self._fault("refused", f"{what}: {said}")
        if not isinstance(answer.get("result"), dict):
            raise self._fault("garbled", f"its answer to {what} has neither result nor error")
        return answer["result"]

    async def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
            await self._process.stdin.drain()
        except (ConnectionError, BrokenPipeError):
            raise await self._ended("while it was written to") from None

    async def _answer(self, number: int, what: str) -> dict[str, Any]:
        while True:
            for message in _messages(await self._line(what)):
                if not isinstance(message, dict):
                    self._count_noise(what)
                elif "method" in message:
                    await self._serve(message)
                elif message.get("id") == number:
                    return message
                else:
                    self._count_noise(what)

    async def _serve(self, message: dict[str, Any]) -> None:
        """Requests of the server: it may ping, and ask for the folders that it may use. Notifications are let pass."""
        if message.get("id") is None:
            return
        reply: dict[str, Any] = {"jsonrpc": "2.0", "id": message["id"]}
        if message["method"] == "ping":
            reply["result"] = {}
        elif message["method"] == "roots/list":
            reply["result"] = {"roots": [{"uri": f"file://{WORKSPACE}", "name": "workspace"}]}
        else:
            reply["error"] = {"code": _METHOD_NOT_FOUND, "message": f"{message['method']!s:.80} is not offered"}
        await self._send(reply)

    def _count_noise(self, what: str) -> None:
        self._noise += 1
        if self._noise > self._patience.noise_lines:
            raise self._fault("garbled", f"{self._noise} lines that are no answer while {what} waits")

    async def _line(self, what: str) -> bytes:
        assert self._process.stdout is not None
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > self._patience.message_bytes:
                raise self._fault("flooded", f"a message of more than {self._patience.message_bytes} bytes for {what}")
            chunk = await self._process.stdout.read(_CHUNK_BYTES)
            if not chunk:
                raise await self._ended(f"before it answered {what}")
            self._buffer += chunk
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    async def _drain(self) -> None:
        """Standard error is read all the time, or a talkative server would block; its end is kept."""
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(_CHUNK_BYTES):
            self._stderr += chunk
            del self._stderr[:-_STDERR_KEPT_BYTES]

    async def _ended(self, when: str) -> ServerFault:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.gather(self._process.wait(), asyncio.shield(self._draining))
        return self._fault("crashed", f"its process ended (exit code {self._process.returncode}) {when}")

    def _fault(self, kind: FaultKind, message: str) -> ServerFault:
        said = self._stderr.decode("utf-8", "replace").strip()
        last = said.splitlines()[-1][:300] if said else ""
        return ServerFault(
            kind, f"The tool server {kind}: {message}." + (f" It said: {last}" if last else ""), stderr=said
        )

    async def _discard(self) -> None:
        """asyncio's wait() waits for the pipes, too, and one that is full and unread never closes."""
        assert self._process.stdout is not None
        while await self._process.stdout.read(_CHUNK_BYTES):
            pass

    async def close(self) -> None:
        """Input is closed, as the protocol asks; what still runs after half a second is killed."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await self._discard()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._discard()
        await self._process.wait()
        self._draining.cancel()
        await asyncio.gather(self._draining, return_exceptions=True)


@contextlib.asynccontextmanager
async def session(command: Sequence[str], patience: Patience | None = None) -> AsyncIterator[Session]:
    """An initialized session with the process that `command` starts (of a box: `sandbox.start`). Raises ServerFault."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    talk = Session(process, patience or Patience())
    try:
        await talk.initialize()
        yield talk
    finally:
        await talk.close()


def _messages(line: bytes) -> list[Any]:
    """One or, as this revision allows, a batch. A line that is no JSON counts as one message that is nothing."""
    if not line.strip():
        return []
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return [None]
    return message if isinstance(message, list) else [message]


def _is_content(content: Any) -> bool:
    return isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("type"), str) and (part["type"] != "text" or "text" in part)
        for part in content
    )
