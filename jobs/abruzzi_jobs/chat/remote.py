"""A stage's roles, asked from other processes: limits, budgets, cache and records stay in one place, wherever the conversations are played.

The stage's process listens behind a key that is drawn at its start; a worker's question goes to it as JSON, and its answer comes back with its record's id.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import aiohttp
from aiohttp import web

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.chat.failures import CallRejected
from abruzzi_jobs.chat.request import ChatBackend, ChatRequest, ChatResponse

_BODY_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Where the roles are. `key` is in no repr."""

    url: str
    key: str
    roles: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Asking(url={self.url!r}, roles={self.roles!r})"


@asynccontextmanager
async def serve_roles(roles: Mapping[str, ChatBackend], host: str = "127.0.0.1") -> AsyncIterator[Asking]:
    """Until the block ends; calls under way are broken off then."""
    key = secrets.token_urlsafe(24)

    async def ask(request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {key}".encode()):
            raise web.HTTPUnauthorized
        body = await request.json()
        return web.json_response(await _answer(roles, body["role"], body["request"]))

    app = web.Application(client_max_size=_BODY_BYTES)
    app.router.add_post("/ask", ask)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, 0, backlog=1024).start()
        yield Asking(url=f"http://{host}:{runner.addresses[0][1]}/ask", key=key, roles=tuple(roles))
    finally:
        await runner.cleanup()


async def _answer(roles: Mapping[str, ChatBackend], role: str, request: dict[str, Any]) -> dict[str, Any]:
    try:
        response = await roles[role].complete(ChatRequest(**request))
    except CallRejected as rejected:
        return {"rejected": {"reason": rejected.reason, "message": rejected.message}}
    except AbruzziError as error:
        return {"failed": error.parts}
    told = {name: getattr(response, name) for name in ("call_id", "seconds", "tries", "is_cached")}
    return {"response": response.as_dict(), **told}


class RemoteRole:
    """A ChatBackend."""

    def __init__(self, session: aiohttp.ClientSession, asking: Asking, role: str) -> None:
        self._session, self._asking, self._role = session, asking, role

    async def complete(self, request: ChatRequest) -> ChatResponse:
        body = {"role": self._role, "request": asdict(request)}
        headers = {"Authorization": f"Bearer {self._asking.key}"}
        try:
            async with self._session.post(self._asking.url, json=body, headers=headers) as answer:
                answer.raise_for_status()
                said = await answer.json()
        except aiohttp.ClientError as error:
            raise AbruzziError("stage_gone", f"The stage's process does not answer: {error}.", status=503) from error
        if "rejected" in said:
            raise CallRejected(**said["rejected"])
        if "failed" in said:
            raise AbruzziError(**said["failed"])
        response = ChatResponse.from_dict(said["response"], call_id=said["call_id"])
        return replace(response, seconds=said["seconds"], tries=said["tries"], is_cached=said["is_cached"])


@asynccontextmanager
async def remote_roles(asking: Asking) -> AsyncIterator[dict[str, ChatBackend]]:
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=30
    )  # how long an answer may take is the endpoint's to know
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        yield {role: RemoteRole(session, asking, role) for role in asking.roles}
