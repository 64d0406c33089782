"""The engine over HTTP: a thread for the protocol, a thread for the model. What waits, waits in the order of its arrival."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from abruzzi_jobs.chat.servers.loopback import completion, error_response, loopback_server
from abruzzi_jobs.serve.asked import BadRequest, read_asked
from abruzzi_jobs.serve.engine import Answer, Cancelled, Engine


def start(settings: dict[str, Any]) -> int:
    """The child's side of an endpoint of kind `checkpoint`: the port. Raises AbruzziError bad_data."""
    engine = Engine.load(
        Path(settings["checkpoint"]), Path(settings["tokenizer"]), thread_count=settings.get("threads")
    )
    port: Future[int] = Future()
    serving = threading.Thread(target=lambda: asyncio.run(_serve(engine, settings["key"], port)), daemon=True)
    serving.start()
    return port.result()


async def _serve(engine: Engine, key: str, port: Future[int]) -> None:
    try:
        async with loopback_server(Handler(engine), key=key, model="checkpoint") as url:
            port.set_result(urlsplit(url).port or 0)
            await asyncio.Event().wait()
    except BaseException as error:
        if not port.done():
            port.set_exception(error)
        raise


class Handler:
    """Of chats. The model's thread is one: batching of concurrent requests would change what a request's answer depends on."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")

    async def __call__(self, request: web.Request) -> web.Response:
        try:
            asked = read_asked(await request.json(), has_template=self._engine.template is not None)
        except json.JSONDecodeError as error:
            return error_response(400, "invalid_request_error", f"The body is no JSON: {error}.")
        except BadRequest as error:
            return error_response(400, "invalid_request_error", str(error))
        cancelled = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            answer: Answer = await loop.run_in_executor(self._thread, self._engine.answer, asked, cancelled)
        except BadRequest as error:
            return error_response(400, "context_length_exceeded", str(error))
        except Cancelled:
            return error_response(499, "cancelled", "The connection was closed.")
        finally:
            cancelled.set()  # the one who asked has left, or the answer is there
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if answer.tool_calls:
            message |= {"content": answer.text or None, "tool_calls": answer.tool_calls}
        usage = answer.prompt_tokens, answer.completion_tokens
        return web.json_response(
            completion(
                message, model="checkpoint", finish_reason=answer.finish_reason, usage=usage, logprobs=answer.logprobs
            )
        )
