"""`abruzzi-sandboxes`: the service of sandbox pods, in the namespace of its pods. Settings come from the environment: ABRUZZI_SANDBOXES, ABRUZZI_URL, ABRUZZI_HOST,
ABRUZZI_PORT. It needs neither the database nor the object store: who may ask it asks the API, with the caller's own token."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import signal
import socket
import sys
import time
from urllib.parse import urlsplit

import httpx

from abruzzi.contracts.states import Role
from abruzzi.kit.settings import SandboxPods, Settings
from abruzzi_operators.kubernetes.access import Access
from abruzzi_operators.kubernetes.errors import ApiError
from abruzzi_operators.kubernetes.execs import RestExecs
from abruzzi_operators.kubernetes.resources import PODS, Object
from abruzzi_operators.kubernetes.rest_api import RestApi
from abruzzi_operators.sandboxes.keeper import Keeper
from abruzzi_operators.sandboxes.server import Server

logger = logging.getLogger("abruzzi.sandboxes")
METADATA = ("169.254.169.254", 80)
"""Where clouds tell a machine its credentials."""
_KNOWN_SECONDS = 60.0


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings = Settings()
    if settings.sandboxes is None or settings.url is None:
        raise SystemExit("ABRUZZI_SANDBOXES or ABRUZZI_URL is not set")
    asyncio.run(serve(settings.sandboxes, url=settings.url, host=settings.host, port=settings.port))


async def serve(pods: SandboxPods, *, url: str, host: str, port: int) -> None:
    """Until SIGTERM or SIGINT; then its pods are destroyed."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    access = Access()
    name = socket.gethostname()
    async with RestApi(access) as api, httpx.AsyncClient(base_url=url, trust_env=False, timeout=30.0) as platform:
        apiserver = urlsplit(access.server)
        places = [(apiserver.hostname or "", apiserver.port or 443), METADATA, (_own_address(apiserver.hostname), port)]
        execs = RestExecs(access)
        keeper = Keeper(
            api, execs, pods, namespace=access.namespace, name=re.sub(r"[^a-z0-9]+", "-", name.lower())[:63].strip("-"),
            places=places, owner=await _own_pod(api, access.namespace, name),
        )  # fmt: skip
        server = Server(keeper, execs, namespace=access.namespace, admit=Admission(platform))
        async with server.listening(host, port):
            keeping = asyncio.create_task(keeper.run())
            stopping = asyncio.create_task(stop.wait())
            logger.info("sandboxes of image %s in namespace %s", pods.image, access.namespace)
            await asyncio.wait([keeping, stopping], return_when=asyncio.FIRST_COMPLETED)
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)


class Admission:
    """The platform says whose a token is; it is asked once a minute a token."""

    def __init__(self, platform: httpx.AsyncClient) -> None:
        self._platform = platform
        self._known: dict[bytes, tuple[str, float]] = {}

    async def __call__(self, token: str) -> str:
        now, digest = time.monotonic(), hashlib.sha256(token.encode()).digest()
        self._known = {known: (attempt, until) for known, (attempt, until) in self._known.items() if until > now}
        if digest in self._known:
            return self._known[digest][0]
        try:
            answer = await self._platform.get("/api/v1/session", headers={"Authorization": f"Bearer {token}"})
        except (httpx.TransportError, ValueError) as error:
            logger.warning("the API does not say whose a token is: %s", type(error).__name__)
            return ""
        said = answer.json() if answer.is_success else {}
        if said.get("role") != Role.ATTEMPT:
            return ""
        self._known[digest] = said["name"], now + _KNOWN_SECONDS
        return said["name"]


async def _own_pod(api: RestApi, namespace: str, name: str) -> Object | None:
    """None where this process is in no pod of that namespace."""
    try:
        return await api.get(PODS, name, namespace=namespace)
    except ApiError:
        return None


def _own_address(towards: str | None) -> str:
    """This machine's or pod's, as others see it; no packet is sent for that."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((towards or "192.0.2.1", 9))
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"


if __name__ == "__main__":
    main()
