"""The service of sandboxes in a thread of this process, over a fake apiserver, with processes of this machine for pods."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from local_execs import LocalExecs
from simulation.fake_api import FakeApi

from abruzzi.kit.settings import SandboxPods
from abruzzi_operators.kubernetes.resources import NAMESPACES, PODS, Object, Resource
from abruzzi_operators.sandboxes.keeper import Keeper, Patience
from abruzzi_operators.sandboxes.server import Server

NAMESPACE = "sandboxes"
TOKEN = "of-an-attempt"
PATIENCE = Patience(poll=0.01, look=0.05, network=0.0, silent=0.0, again=0.05, take=20.0, word=0.05)


class PodsThatRun(FakeApi):
    """A kubelet that starts every pod at once, or says of it what `status` does."""

    def __init__(self) -> None:
        super().__init__()
        self.status: Object = {"phase": "Running"}

    async def create(self, resource: Resource, body: Object, *, dry_run: bool = False) -> Object:
        made = await super().create(resource, body, dry_run=dry_run)
        if resource == PODS:
            self.put_status(PODS, made["metadata"]["name"], self.status, namespace=NAMESPACE)
        return made


@dataclass
class Service:
    api: PodsThatRun
    execs: LocalExecs
    port: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def pods(self) -> list[str]:
        found = asyncio.run(self.api.list(PODS, namespace=NAMESPACE))
        return [pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]]


@contextmanager
def sandbox_service(settings: SandboxPods | None = None, *, claim_seconds: float = 30.0) -> Iterator[Service]:
    api = PodsThatRun()
    asyncio.run(api.create(NAMESPACES, NAMESPACES.new(NAMESPACE)))
    service = Service(api, LocalExecs(api))
    listening, stop = threading.Event(), threading.Event()

    async def admit(token: str) -> str:
        return "attempt" if token == TOKEN else ""

    async def serve() -> None:
        keeper = Keeper(
            api, service.execs, settings or SandboxPods(image="stages", ready=1), namespace=NAMESPACE, name="test", places=(), patience=PATIENCE,
        )  # fmt: skip
        server = Server(keeper, service.execs, namespace=NAMESPACE, admit=admit, claim_seconds=claim_seconds)
        async with server.listening("127.0.0.1", 0) as service.port:
            keeping = asyncio.create_task(keeper.run())
            listening.set()
            while not stop.is_set():
                await asyncio.sleep(0.02)
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert listening.wait(60)
    try:
        yield service
    finally:
        stop.set()
        thread.join(60)


@contextmanager
def stage_with_images(folder: Path, patch: pytest.MonkeyPatch, *images: str) -> Iterator[None]:
    """This process as a stage whose boxes are pods, from those images as well."""
    (folder / "token").write_text(TOKEN)
    with sandbox_service(SandboxPods(image="stages", ready=0, most=4, images=images)) as service:
        patch.setenv("ABRUZZI_SANDBOXES_URL", service.url)
        patch.setenv("ABRUZZI_TOKEN", str(folder / "token"))
        yield
