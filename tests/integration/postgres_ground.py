"""The store over Postgres on the contract's ground."""

from __future__ import annotations

from typing import Any

from simulation.run_store_ground import Scenes
from sqlalchemy import select

from abruzzi.artifacts import service as artifacts
from abruzzi.contracts.metric import Heartbeat
from abruzzi.contracts.stage import DirectoryStore, StageSpec
from abruzzi.contracts.states import ArtifactKind, StageKind
from abruzzi.events import service as events
from abruzzi.events.models import OutboxRow
from abruzzi.kit.db import transaction
from abruzzi.runs import heartbeat, query, steer, submit
from abruzzi.store import commit_artifact

CHAIN = """
version = 1
name = "chain"

[[stage]]
id = "first"
kind = "container"
[stage.container]
command = ["true"]
[stage.resources]
ranks = 2

[[stage]]
id = "second"
kind = "container"
needs = ["first"]
[stage.container]
command = ["true"]

[[stage]]
id = "third"
kind = "container"
needs = ["second"]
gate = "second.score <= 2.0"
[stage.container]
command = ["true"]
"""


class PostgresGround(Scenes):
    """`world` is the fixture of that name: a database, a directory as object store, a clock that is turned by hand."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self.store = world.store

    def now(self) -> float:
        return self._world.clock.now().timestamp()

    def turn(self, seconds: float) -> None:
        self._world.clock.turn(seconds)

    async def submit(self) -> str:
        return await self._world.submit(CHAIN)

    async def cancel(self, run_id: str) -> None:
        await self._world.do(steer.cancel, run_id)

    async def interrupt(self) -> None:
        await self._world.do(steer.interrupt_all)

    async def resume(self) -> None:
        await self._world.do(steer.resume_interrupted)

    async def retry(self, run_id: str, stage_id: str | None = None) -> None:
        await self._world.do(steer.retry, run_id, stage_id)

    async def branch(self, parent_id: str, stage_id: str, name: str) -> str:
        async with transaction(self._world.sessions) as session:
            found = await artifacts.list_artifacts(session, run_id=parent_id, stage_id=stage_id)
        chosen = next(a.id for a in found if a.name == name)
        return await self._world.do(submit.branch, parent_id, chosen, objects=self._world.objects, actor="me")

    async def commit(self, attempt_id: str, name: str, **facts: float) -> None:
        async with transaction(self._world.sessions) as session:
            attempt = await query.attempt_row(session, attempt_id)
        # Not the store's own `spec`: that would pick a checkpoint to resume from, and remember it.
        spec = StageSpec(
            project_id=attempt.project_id, run_id=attempt.run_id, stage_id=attempt.stage_id, attempt_id=attempt_id, epoch=attempt.epoch,
            kind=StageKind.CONTAINER, config={}, store=DirectoryStore(root="."),
            output_prefix=f"projects/{attempt.project_id}/runs/{attempt.run_id}/{attempt.stage_id}/",
        )  # fmt: skip
        source = self._world.scratch / "committed.txt"
        source.write_text(name)
        step = int(name.removeprefix("step-"))
        files = {"file.txt": source}
        commit_artifact(
            self._world.objects, spec, kind=ArtifactKind.CHECKPOINT, name=name, files=files, step=step, meta=facts
        )

    async def beat(self, attempt_id: str, rank: int, step: int, phase: str) -> None:
        beat = Heartbeat(rank=rank, step=step, phase=phase, at=self.now())
        await self._world.do(heartbeat.record, attempt_id, beat)

    async def events(self, run_id: str) -> list[tuple[str, str, str]]:
        async with transaction(self._world.sessions) as session:
            found = await events.read(session, run_id=run_id, limit=1000)
        positions = [int(event.id) for event in found]
        assert positions == sorted(set(positions))
        return [
            (
                e.kind,
                str(e.body.get("attempt") or e.body.get("stage") or ""),
                str(e.body.get("state") or e.body["name"]),
            )
            for e in found
        ]

    async def outbox(self, run_id: str) -> list[str]:
        async with transaction(self._world.sessions) as session:
            rows = (await session.execute(select(OutboxRow).order_by(OutboxRow.id))).scalars().all()
        return [row.kind for row in rows if row.body["run_id"] == run_id]
