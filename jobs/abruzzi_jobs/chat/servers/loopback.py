"""The HTTP side of our own servers: OpenAI's paths on a loopback port, behind a key."""

from __future__ import annotations

import hmac
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

MAX_BODY_BYTES = 64 << 20


@asynccontextmanager
async def loopback_server(
    complete: Callable[[web.Request], Awaitable[web.StreamResponse]], *, key: str, model: str
) -> AsyncIterator[str]:
    """Base URL (with /v1) of a server that answers chats with `complete`. Calls under way are broken off at its end."""

    @web.middleware
    async def guard(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
        if request.path != "/health" and not hmac.compare_digest(
            request.headers.get("Authorization", "").encode(), f"Bearer {key}".encode()
        ):
            return error_response(401, "authentication_error", "The key is missing or wrong.")
        return await handler(request)

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": model, "object": "model", "owned_by": "abruzzi"}]})

    app = web.Application(middlewares=[guard], client_max_size=MAX_BODY_BYTES)
    app.router.add_post("/v1/chat/completions", complete)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/health", health)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        port = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        await runner.cleanup()


def completion(
    message: Mapping[str, Any],
    *,
    model: str,
    finish_reason: str,
    usage: tuple[int, int] | None,
    logprobs: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The protocol's answer. `usage`: tokens of prompt and answer, where they are known."""
    choice: dict[str, Any] = {"index": 0, "message": dict(message), "finish_reason": finish_reason}
    if logprobs is not None:
        choice["logprobs"] = {"content": logprobs}
    answer: dict[str, Any] = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
    }
    if usage is not None:
        answer["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return answer


def error_response(status: int, kind: str, message: str) -> web.Response:
    """The protocol's error."""
    return web.json_response({"error": {"message": message, "type": kind, "code": kind}}, status=status)
