"""Ground of the tests of `Run` objects: a controller of them over a real database, and an apiserver, in memory or real."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from abruzzi.runs.submissions import Submitted
from abruzzi_operators.controller.run_rows import StoredRuns
from abruzzi_operators.controller.runs import RunController
from abruzzi_operators.kubernetes.api import Api
from abruzzi_operators.kubernetes.resources import NAMESPACES, RUNS, Object

SECONDS = 240.0
ONE_STAGE = """
version = 1
name = "one"
[[stage]]
id = "only"
kind = "container"
[stage.container]
command = ["true"]
"""


def namespace(name: str, project: str | None = "default", **labels: str) -> Object:
    thing = NAMESPACES.new(name)
    thing["metadata"]["labels"] = {**({"abruzzi.io/project": project} if project else {}), **labels}
    return thing


def run(name: str = "first", where: str = "ml", **spec: Any) -> Object:
    return RUNS.new(name, where, spec={"recipe": ONE_STAGE, **spec})


def condition(thing: Object, kind: str) -> tuple[str, str, str]:
    """(status, reason, message)"""
    found = next(c for c in thing["status"]["conditions"] if c["type"] == kind)
    return found["status"], found["reason"], found["message"]


class Objects:
    """What a test does with one controller and its apiserver."""

    def __init__(self, api: Api, world: Any, **options: Any) -> None:
        self.api, self.world = api, world
        self.rows = StoredRuns(world.sessions, world.objects, world.clock, default_pool="local")
        self.controller = RunController(api, self.rows, now=world.clock.now, **options)

    async def __aenter__(self) -> Objects:
        await self.controller.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.controller.__aexit__()

    async def get(self, name: str = "first", where: str = "ml") -> Object:
        return await self.api.get(RUNS, name, namespace=where)

    async def until(self, holds: Callable[[Object], bool], name: str = "first", where: str = "ml") -> Object:
        """The object, looked at until its status holds."""
        deadline = time.monotonic() + SECONDS
        while True:
            await self.controller.look()
            thing = await self.get(name, where)
            if holds(thing):
                return thing
            assert time.monotonic() < deadline, f"still {thing.get('status')}"
            await asyncio.sleep(0.01)

    async def until_phase(self, phase: str, name: str = "first", where: str = "ml") -> Object:
        return await self.until(lambda thing: thing.get("status", {}).get("phase") == phase, name, where)

    async def until_state(self, run_id: str, state: str) -> None:
        """Of the run, looked after until then."""
        deadline = time.monotonic() + SECONDS
        while (now := (await self.world.get(run_id)).state) != state:
            assert time.monotonic() < deadline, f"still {now}"
            await self.controller.look()
            await asyncio.sleep(0.01)

    async def open(self) -> dict[str, Submitted]:
        return await self.rows.open()
