"""Whoever is asked by a harness that has no roles: an endpoint, or a checkpoint that is served beside it, behind an event loop of its own."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from abruzzi.contracts.endpoint import (
    ChatRole,
    CheckpointEndpoint,
    EndpointBase,
    EndpointKind,
    OpenAiEndpoint,
    RoleConfig,
    SmolLm2Endpoint,
)
from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.chat.request import ChatRequest, ChatResponse
from abruzzi_jobs.chat.roles import RoleClient, open_roles

_NAME = "target"


def target(
    *,
    checkpoint: str | None = None,
    tokenizer: str | None = None,
    base_url: str | None = None,
    model: str | None = None,
    api_key: str | None = None,
    concurrency: int = 8,
) -> Target:
    """`checkpoint`, `tokenizer`: folders of pulled artifacts. `base_url`, `model`: of any server of OpenAI's protocol; `api_key` "secret:NAME", never the
    key. model = "smollm2" alone is the small model that ships in a package. Raises AbruzziError `no_target`."""
    endpoint: EndpointBase
    folders: dict[str, Path] = {}
    if checkpoint and tokenizer:
        endpoint = CheckpointEndpoint(
            kind=EndpointKind.CHECKPOINT, checkpoint=checkpoint, tokenizer=tokenizer, concurrency=concurrency
        )
        folders = {f"{_NAME}.checkpoint": Path(checkpoint), f"{_NAME}.tokenizer": Path(tokenizer)}
    elif base_url and model:
        endpoint = OpenAiEndpoint(
            kind=EndpointKind.OPENAI, base_url=base_url, model=model, api_key=api_key, concurrency=concurrency
        )
    elif model == EndpointKind.SMOLLM2:
        endpoint = SmolLm2Endpoint(kind=EndpointKind.SMOLLM2)
    else:
        raise AbruzziError(
            "no_target",
            "Nobody is named who could be asked.",
            hint="Give checkpoint and tokenizer (folders, `abruzzi artifacts pull`), or base_url and model, or model=smollm2.",
        )
    return Target(endpoint, folders)


class Target:
    """Opened at the first question, closed by `close` or with the process. Any thread and any loop may ask."""

    def __init__(self, endpoint: EndpointBase, folders: dict[str, Path]) -> None:
        self._endpoint, self._folders = endpoint, folders
        self._loop = asyncio.new_event_loop()
        self._stack = AsyncExitStack()
        self._client: RoleClient | None = None
        self._opening = asyncio.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="abruzzi-target", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    async def complete(self, request: ChatRequest) -> ChatResponse:
        """Raises CallRejected where this question has no usable answer, any other ChatFailure where there is no point in going on."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._complete(request), self._loop))

    def complete_all(self, requests: Sequence[ChatRequest]) -> list[ChatResponse]:
        """As many at a time as the endpoint allows, in their order. Raises as `complete` does."""

        async def ask() -> list[ChatResponse]:
            return await asyncio.gather(*(self._complete(request) for request in requests))

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result()

    def close(self) -> None:
        """Ends a server of ours. A second call does nothing."""
        atexit.unregister(self.close)
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _complete(self, request: ChatRequest) -> ChatResponse:
        async with self._opening:
            if self._client is None:
                roles: Any = {_NAME: RoleConfig(endpoint=_NAME)}
                opened = await self._stack.enter_async_context(
                    open_roles(roles, {_NAME: self._endpoint}, folders=self._folders)
                )
                self._client = opened[ChatRole.TARGET]
        return await self._client.complete(request)
