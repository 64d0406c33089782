"""An answer in pieces: OpenAI's chunks as server-sent events."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web


class Events:
    """Chunks of one answer, in order: text, calls, the reason, usage where it is wanted, `done`."""

    def __init__(self, response: web.StreamResponse, *, model: str) -> None:
        self._response = response
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }

    @classmethod
    async def begun(cls, request: web.Request, *, model: str) -> Events:
        """Headers and the role are sent, so the client knows that it has been heard."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        events = cls(response, model=model)
        await events.delta({"role": "assistant", "content": ""})
        return events

    async def delta(self, delta: dict[str, Any], *, finish_reason: str | None = None) -> None:
        await self._write({"choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})

    async def calls(self, calls: Sequence[Mapping[str, Any]]) -> None:
        await self.delta({"tool_calls": [{"index": index, **call} for index, call in enumerate(calls)]})

    async def usage(self, prompt: int, answer: int) -> None:
        usage = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
        await self._write({"choices": [], "usage": usage})

    async def heartbeat(self) -> None:
        """A comment, which clients pass over: proxies and clients with a read timeout stay on the line."""
        await self._response.write(b": the policy has not ended its turn\n\n")

    async def failed(self, kind: str, message: str) -> web.StreamResponse:
        """As clients read an error in the middle of a stream."""
        error = {"error": {"message": message, "type": kind, "code": kind}}
        await self._response.write(b"data: " + json.dumps(error).encode() + b"\n\n")
        await self._response.write_eof()
        return self._response

    async def done(self) -> web.StreamResponse:
        await self._response.write(b"data: [DONE]\n\n")
        await self._response.write_eof()
        return self._response

    async def _write(self, more: dict[str, Any]) -> None:
        await self._response.write(b"data: " + json.dumps({**self._head, **more}).encode() + b"\n\n")
