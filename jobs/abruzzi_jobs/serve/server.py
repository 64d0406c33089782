"""The engine over HTTP: a thread for the protocol, a thread for the model, which decodes all chats that are asked at a time together."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from abruzzi_jobs.chat.servers.events import Events
from abruzzi_jobs.chat.servers.loopback import completion, error_response, loopback_server
from abruzzi_jobs.models import YarnConfig
from abruzzi_jobs.rl.engine.front import AsyncEngine
from abruzzi_jobs.rl.engine.protocol import Drawn, Request
from abruzzi_jobs.serve.answering import Answer, Answering
from abruzzi_jobs.serve.asked import Asked, BadRequest, read_asked
from abruzzi_jobs.serve.engine import Engine, NoRoom

MODEL = "checkpoint"


def start(settings: dict[str, Any]) -> int:
    """The child's side of an endpoint of kind `checkpoint`: the port. Raises AbruzziError bad_data."""
    yarn = settings.get("yarn")
    engine = Engine.load(
        Path(settings["checkpoint"]), Path(settings["tokenizer"]), thread_count=settings.get("threads"),
        yarn=YarnConfig.from_dict(yarn) if yarn else None,
    )  # fmt: skip
    port: Future[int] = Future()
    serving = threading.Thread(target=lambda: asyncio.run(_serve(engine, settings["key"], port)), daemon=True)
    serving.start()
    return port.result()


async def _serve(engine: Engine, key: str, port: Future[int]) -> None:
    try:
        async with (
            AsyncEngine(engine.inference) as front,
            loopback_server(Handler(engine, front), key=key, model=MODEL) as url,
        ):
            port.set_result(urlsplit(url).port or 0)
            await asyncio.Event().wait()
    except BaseException as error:
        if not port.done():
            port.set_exception(error)
        raise


class Handler:
    """Of chats. Who closes the connection cancels the request."""

    def __init__(self, engine: Engine, front: AsyncEngine) -> None:
        self._engine, self._front = engine, front

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        try:
            asked = read_asked(await request.json(), has_template=self._engine.template is not None)
        except json.JSONDecodeError as error:
            return error_response(400, "invalid_request_error", f"The body is no JSON: {error}.")
        except BadRequest as error:
            return error_response(400, "invalid_request_error", str(error))
        try:
            drawing, taking = self._engine.prepare(asked)
        except BadRequest as error:
            kind = "context_length_exceeded" if isinstance(error, NoRoom) else "invalid_request_error"
            return error_response(400, kind, str(error))
        if asked.stream:
            return await self._stream(request, asked, drawing, taking)
        async with aclosing(self._pieces(drawing, taking)) as pieces:
            async for _ in pieces:
                pass
        answer = taking.answer()
        usage = answer.prompt_tokens, answer.completion_tokens
        return web.json_response(
            completion(
                message_of(answer),
                model=MODEL,
                finish_reason=answer.finish_reason,
                usage=usage,
                logprobs=answer.logprobs,
            )
        )

    async def _stream(
        self, request: web.Request, asked: Asked, drawing: Request, taking: Answering
    ) -> web.StreamResponse:
        """Server-sent events: pieces of text as they are certain, calls when the turn is whole."""
        events = await Events.begun(request, model=MODEL)
        async with aclosing(self._pieces(drawing, taking)) as pieces:
            async for piece in pieces:
                if piece:
                    await events.delta({"content": piece})
        answer = taking.answer()
        if rest := taking.rest(answer):
            await events.delta({"content": rest})
        if answer.tool_calls:
            await events.calls(answer.tool_calls)
        await events.delta({}, finish_reason=answer.finish_reason)
        if asked.wants_usage:
            await events.usage(answer.prompt_tokens, answer.completion_tokens)
        return await events.done()

    async def _pieces(self, drawing: Request, taking: Answering) -> AsyncGenerator[str, None]:
        async with aclosing(self._front.stream(drawing)) as items:
            async for item in items:
                if isinstance(item, Drawn):
                    taking.take(item)
                    yield taking.piece()
                if taking.is_over:
                    return


def message_of(answer: Answer) -> dict[str, Any]:
    """The protocol's message."""
    if answer.tool_calls:
        return {"role": "assistant", "content": answer.text or None, "tool_calls": answer.tool_calls}
    return {"role": "assistant", "content": answer.text}
