"""The stand-in over HTTP, in the stage's own event loop. Every answer of it is marked: model and system_fingerprint are `standin-rule-v1`."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from abruzzi.contracts.endpoint import StandInEndpoint
from abruzzi_jobs.chat.request import STANDIN_GENERATOR
from abruzzi_jobs.chat.servers.loopback import completion, loopback_server
from abruzzi_jobs.chat.servers.rules import answer

STANDIN_MODEL = STANDIN_GENERATOR

Said = str | Mapping[str, Any]
Script = Callable[[str, Mapping[str, Any]], Said | None]
"""(role, body of the request) → what is said, a text or an assistant's message; None leaves it to the rules."""


def scripted(lines: Mapping[str, Sequence[Said]]) -> Script:
    """Each role says its lines in turn, then goes by the rules."""
    said: dict[str, int] = defaultdict(int)

    def script(role: str, body: Mapping[str, Any]) -> Said | None:
        number, mine = said[role], lines.get(role, ())
        said[role] += 1
        return mine[number] if number < len(mine) else None

    return script


@asynccontextmanager
async def serve_standin(endpoint: StandInEndpoint, *, script: Script | None = None) -> AsyncIterator[tuple[str, str]]:
    """(base URL, key)."""
    key = secrets.token_urlsafe(24)

    async def complete(request: web.Request) -> web.Response:
        role, body = request.headers.get("X-Abruzzi-Role", ""), await request.json()
        said = script(role, body) if script is not None else None
        message = {"content": said} if isinstance(said, str) else dict(said or answer(role, body, endpoint.faults))
        asked = sum(len(str(m.get("content") or "")) for m in body.get("messages", ()))
        finish = "tool_calls" if message.get("tool_calls") else "stop"
        usage = asked // 4 + 1, len(str(message.get("content") or message.get("tool_calls") or "")) // 4 + 1
        return web.json_response(
            completion({"role": "assistant", **message}, model=STANDIN_MODEL, finish_reason=finish, usage=usage)
            | {"system_fingerprint": STANDIN_GENERATOR}
        )

    async with loopback_server(complete, key=key, model=STANDIN_MODEL) as url:
        yield url, key
