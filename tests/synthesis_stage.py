"""A `synthesize` stage for tests: its spec in a directory store, run here or as a process that can be killed, and a model's server that can be held."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from abruzzi.client.stage import Reporter, StageContext
from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.recipe import SynthesizeStage
from abruzzi.contracts.stage import DirectoryStore, StageSpec
from abruzzi.store import open_store
from abruzzi_jobs.chat.servers.loopback import completion, loopback_server
from abruzzi_jobs.chat.servers.rules import answer
from abruzzi_jobs.entrypoints import synthesize

KEY = "test-key"
SETTINGS: dict[str, Any] = {"synthetic": 60, "agents": 8, "tasks": 24, "concurrency": 4, "shard_rows": 2}


class Stage:
    """One run's stage in `root`. `endpoint`: where all roles are asked."""

    def __init__(
        self, root: Path, endpoint: dict[str, Any] | None = None, *, run_id: str = "0123456789", **more: Any
    ) -> None:
        self.root, self.run_id = root, run_id
        resources = more.pop("resources", {})
        self.stage = SynthesizeStage.model_validate(
            {
                "id": "synthesize",
                "kind": "synthesize",
                "synthesis": {**SETTINGS, **more},
                "roles": {"agent": "it", "user": "it", "judge": "it"},
                "endpoint": {"it": endpoint or {"kind": "standin"}},
                "resources": resources,
            }
        )
        self.manifests: dict[str, Manifest] = {}

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def prefix(self) -> str:
        return f"projects/default/runs/{self.run_id}/synthesize/"

    def spec(self, attempt: int = 1) -> StageSpec:
        return StageSpec(
            project_id="default",
            run_id=self.run_id,
            stage_id="synthesize",
            attempt_id=f"{self.run_id}-synthesize-{attempt}",
            epoch=attempt,
            kind=self.stage.kind,
            config=self.stage.model_dump(mode="json"),
            store=DirectoryStore(root=str(self.store)),
            output_prefix=self.prefix,
        )

    def run(self, attempt: int = 1) -> None:
        """In this process."""
        spec = self.spec(attempt)
        folder = self._folder(attempt)
        context = StageContext(spec, 0, 1, folder, open_store(spec.store))
        context.on_commit.append(lambda _, manifest: self.manifests.__setitem__(manifest.name, manifest))
        with Reporter.from_context(context) as reporter:
            synthesize.run(context, reporter)

    def start(self, attempt: int = 1) -> subprocess.Popen[bytes]:
        """As a process; its output is in `log`."""
        folder = self._folder(attempt)
        (folder / "spec.json").write_text(self.spec(attempt).model_dump_json())
        environment = {
            **os.environ,
            "ABRUZZI_SPEC": str(folder / "spec.json"),
            "ABRUZZI_ATTEMPT_DIR": str(folder),
            "ABRUZZI_SECRET_IT": KEY,
        }
        with (folder / "log").open("wb") as log:
            command = [sys.executable, "-m", "abruzzi_jobs.entrypoints.main"]
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def log(self, attempt: int = 1) -> str:
        return (self._folder(attempt) / "log").read_text()

    def files(self, name: str, attempt: int = 1) -> dict[str, bytes]:
        """Of a committed artifact."""
        store = open_store(self.spec().store)
        manifest = Manifest.model_validate_json(store.get(f"{self.prefix}e{attempt}/{name}/manifest.json"))
        return {
            file.path: store.get(f"{self.prefix}blobs/{file.digest.removeprefix('sha256:')}") for file in manifest.files
        }

    def pulled(self, name: str, attempt: int = 1) -> Path:
        folder = self.root / f"pulled-{self.run_id}-{attempt}-{name}"
        folder.mkdir(exist_ok=True)
        for path, content in self.files(name, attempt).items():
            (folder / path).write_bytes(content)
        return folder

    def _folder(self, attempt: int) -> Path:
        folder = self.root / f"attempt-{self.run_id}-{attempt}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class Model:
    """What stands for a model: the stand-in's rules under another name. From `hold_from` on, questions wait until `go`."""

    def __init__(self) -> None:
        self.asked = 0
        self.hold_from: int | None = None
        self.held = threading.Event()
        self.go = threading.Event()
        self.instead: Callable[[int], web.Response | None] = lambda number: None
        """What is answered to the question of that number in place of an answer."""
        self.url = ""

    def endpoint(self, **more: Any) -> dict[str, Any]:
        return {"kind": "openai", "base_url": self.url, "model": "real-1", "api_key": "secret:it", **more}

    async def complete(self, request: web.Request) -> web.Response:
        number, self.asked = self.asked, self.asked + 1
        if self.hold_from is not None and number >= self.hold_from:
            self.held.set()
            await asyncio.to_thread(self.go.wait)
        if (other := self.instead(number)) is not None:
            return other
        body = await request.json()
        message = answer(_role(body), body, {})
        return web.json_response(completion(message, model="real-1", finish_reason="stop", usage=(9, 9)))


def _role(body: dict[str, Any]) -> str:
    if body.get("tools"):
        return "agent"
    return "judge" if "<rubric>" in json.dumps(body["messages"]) else "user"


@contextmanager
def model_server() -> Iterator[Model]:
    """On a thread of its own, so that the test may wait."""
    model, ready, done = Model(), threading.Event(), threading.Event()

    async def serve() -> None:
        async with loopback_server(model.complete, key=KEY, model="real-1") as url:
            model.url = url
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(120), "the server did not come up"
    try:
        yield model
    finally:
        model.go.set()
        done.set()
        thread.join(120)
