"""The door of the service (contracts/sandbox.py). It passes bytes on, and knows nothing of what they mean."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from aiohttp import ClientConnectionResetError, web

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.sandbox import CLAIM_SECONDS, INTERPRETER, SANDBOXES_PATH, SILENT_SECONDS, SandboxOut
from abruzzi_operators.kubernetes.errors import ApiError
from abruzzi_operators.kubernetes.execs import Execs, Stream
from abruzzi_operators.sandboxes.keeper import Keeper

logger = logging.getLogger(__name__)
Admit = Callable[[str], Awaitable[bool]]
"""Whether a bearer of this token is a stage that runs."""


class Server:
    def __init__(
        self, keeper: Keeper, execs: Execs, *, namespace: str, admit: Admit, claim_seconds: float = CLAIM_SECONDS
    ) -> None:
        self._keeper, self._execs, self._namespace, self._admit = keeper, execs, namespace, admit
        self._claim_seconds = claim_seconds
        self._claims: dict[str, tuple[str, asyncio.Task[None]]] = {}
        """Of sandboxes that were taken and not yet used: the pod, and what takes it back."""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post(SANDBOXES_PATH, self._take)
        app.router.add_post(f"{SANDBOXES_PATH}/{{id}}", self._use)
        app.router.add_get("/healthz", self._health)
        return app

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[int]:
        """The port, for as long as the block lasts."""
        runner = web.AppRunner(self.app(), access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, backlog=1024).start()
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()
            for _, task in self._claims.values():
                task.cancel()

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"ready": self._keeper.ready, "taken": self._keeper.taken, "fault": self._keeper.fault}
        )

    async def _take(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not await self._admit(token.strip()):
            return web.Response(status=401, text="This is for stages, with their attempt's token.")
        try:
            pod = await self._keeper.take()
        except AbruzziError as error:
            return web.Response(status=503, text=error.message)
        sandbox = SandboxOut(id=secrets.token_hex(16))
        self._claims[sandbox.id] = pod, asyncio.create_task(self._take_back(sandbox.id))
        return web.json_response(sandbox.model_dump(), status=201)

    async def _take_back(self, id: str) -> None:
        await asyncio.sleep(self._claim_seconds)
        pod, _ = self._claims.pop(id)
        await self._keeper.destroy(pod)

    async def _use(self, request: web.Request) -> web.StreamResponse:
        claim = self._claims.pop(request.match_info["id"], None)
        if claim is None:
            return web.Response(status=404, text="There is no such sandbox: it was used, or not used in time.")
        pod, take_back = claim
        take_back.cancel()
        try:
            async with self._execs.open(self._namespace, pod, INTERPRETER) as stream:
                answer = web.StreamResponse()
                await answer.prepare(request)
                with suppress(ClientConnectionResetError):
                    await _converse(request, stream, answer)
                    await answer.write_eof()
                return answer
        except ApiError as error:
            return web.Response(status=503, text=error.message)
        finally:
            await asyncio.shield(self._keeper.destroy(pod))


async def _converse(request: web.Request, stream: Stream, answer: web.StreamResponse) -> None:
    """Until either side ends."""

    async def tell() -> None:
        while True:
            async with asyncio.timeout(SILENT_SECONDS):
                data = await request.content.readany()
            if not data:
                return
            await stream.send(data)

    async def hear() -> None:
        while data := await stream.receive():
            await answer.write(data)
        if stream.said:
            logger.info("a sandbox ended: %s", stream.said[-300:])

    sides = [asyncio.create_task(tell()), asyncio.create_task(hear())]
    try:
        await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for side in sides:
            side.cancel()
        await asyncio.gather(*sides, return_exceptions=True)
