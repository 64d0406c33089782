"""The door of the service (contracts/sandbox.py). It passes bytes on, and knows nothing of what they mean."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from aiohttp import ClientConnectionResetError, web
from pydantic import ValidationError

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.sandbox import (
    CLAIM_SECONDS,
    INTERPRETER,
    SANDBOXES_PATH,
    SILENT_SECONDS,
    SandboxIn,
    SandboxOut,
)
from abruzzi_operators.kubernetes.errors import ApiError, Unreachable
from abruzzi_operators.kubernetes.execs import Execs, Stream
from abruzzi_operators.sandboxes.keeper import Keeper

logger = logging.getLogger(__name__)
Admit = Callable[[str], Awaitable[str]]
"""The attempt whose token this is; empty where it is no attempt's."""


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
        attempt = await self._admit(token.strip()) if scheme.lower() == "bearer" else ""
        if not attempt:
            return web.Response(status=401, text="This is for stages, with their attempt's token.")
        try:
            wanted = SandboxIn.model_validate_json(await request.read() or b"{}")
            pod = await self._keeper.take(attempt, wanted)
        except ValidationError as error:
            return web.Response(status=422, text=str(error))
        except AbruzziError as error:
            return web.Response(status=403 if error.code == "image_refused" else 503, text=error.message)
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
        answer = web.StreamResponse()
        try:
            async with self._execs.open(self._namespace, pod, INTERPRETER) as stream:
                await answer.prepare(request)
                with suppress(ClientConnectionResetError):
                    if why := await self._converse(pod, request, stream, answer):
                        logger.warning("sandbox %s is gone: %s", pod, why)
                        _break_off(request)
                    else:
                        await answer.write_eof()
                return answer
        except ApiError as error:
            return web.Response(status=503, text=error.message)
        finally:
            await asyncio.shield(self._keeper.destroy(pod))

    async def _converse(self, pod: str, request: web.Request, stream: Stream, answer: web.StreamResponse) -> str:
        """Until either side ends. Why the pod is gone, where neither of them ended it."""

        async def tell() -> None:
            while True:
                async with asyncio.timeout(SILENT_SECONDS):
                    data = await request.content.readany()
                if not data:
                    return
                with suppress(Unreachable):  # what is still to be heard says how it ended
                    await stream.send(data)

        async def hear() -> str:
            while data := await stream.receive():
                await answer.write(data)
            if stream.said:
                logger.info("sandbox %s ended: %s", pod, stream.said[-300:])
            return await self._keeper.why_gone(pod) if stream.failed else ""

        telling, hearing = asyncio.create_task(tell()), asyncio.create_task(hear())
        try:
            await asyncio.wait([telling, hearing], return_when=asyncio.FIRST_COMPLETED)
            return await hearing if hearing.done() else ""
        except Unreachable as error:
            return await self._keeper.why_gone(pod, error.message)
        finally:
            for side in (telling, hearing):
                side.cancel()
            await asyncio.gather(telling, hearing, return_exceptions=True)


def _break_off(request: web.Request) -> None:
    """What the pod's program has a hand in is the body; that the body has no end is our word alone."""
    if request.transport is not None:
        request.transport.abort()
