"""What a run controller would write of runs whose workloads a test describes, today or on an earlier day."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from abruzzi.contracts.metric import Heartbeat
from abruzzi.contracts.stage import DirectoryStore as DirectoryConfig
from abruzzi.contracts.states import StageState
from abruzzi.engine.actions import CollectArtifacts, CreateWorkload, RemoveWorkload
from abruzzi.engine.decide import decide
from abruzzi.engine.view import Phase, Seen
from abruzzi.kit.db import Sessions, transaction
from abruzzi.runs import heartbeat, submit
from abruzzi.runs.run_store import PostgresRunStore
from abruzzi.store import DirectoryStore

RECIPE = """
version = 1
name = "k2-ablation"
[[stage]]
id = "corpus"
kind = "container"
[stage.container]
command = ["true"]
[stage.resources]
pool = "cpu"
[[stage]]
id = "pretrain"
kind = "container"
needs = ["corpus"]
[stage.container]
command = ["true"]
[stage.resources]
pool = "h800"
ranks = RANKS
[[stage]]
id = "evaluate"
kind = "container"
needs = ["pretrain"]
[stage.container]
command = ["true"]
[stage.resources]
pool = "cpu"
"""
_DUE = 0.0
"""Unix seconds. A run is always due, whatever the clock of the next step says."""


@dataclass
class HandClock:
    """Stands still until somebody turns it."""

    moment: datetime

    def now(self) -> datetime:
        return self.moment

    def turn(self, **span: float) -> None:
        self.moment += timedelta(**span)


@dataclass
class HandRun:
    """One run, step by step, at the times of its own clock."""

    sessions: Sessions
    store_root: Path
    clock: HandClock
    name: str
    ranks: int
    project_id: str = "default"
    id: str = ""
    _seen: dict[str, Seen] = field(default_factory=dict)

    async def submit(self) -> None:
        """Its corpus is made in two minutes; then `pretrain` is next."""
        async with transaction(self.sessions) as session:
            made = await submit.submit(
                session, project_id=self.project_id, objects=DirectoryStore(self.store_root), recipe_toml=RECIPE.replace("RANKS", str(self.ranks)),
                name=self.name, actor="admin:admin", now=self.clock.now(),
            )  # fmt: skip
        self.id = made.id
        held = self.clock.now().timestamp()
        await self.step({"corpus": Seen(Phase.RUNNING, held_since=held)})
        self.clock.turn(minutes=2)
        await self.see("corpus", Seen(Phase.EXITED, exit_code=0))

    async def see(self, stage: str, seen: Seen) -> None:
        """The cluster shows the newest attempt of a stage as `seen`."""
        await self.step({stage: seen})

    async def run(self, stage: str) -> None:
        await self.see(stage, Seen(Phase.RUNNING, held_since=self.clock.now().timestamp()))

    async def beat(self, stage: str, phase: str, step: int, total: int | None = None) -> None:
        """Of all ranks at once."""
        now = self.clock.now()
        attempt_id = await self.newest(stage)
        async with transaction(self.sessions) as session:
            for rank in range(self.ranks):
                told = Heartbeat(rank=rank, step=step, total_steps=total, phase=phase, at=now.timestamp())
                await heartbeat.record(session, attempt_id, told, now=now)

    async def newest(self, stage: str) -> str:
        view = await self._store().load(self.id)
        return next(s for s in view.stages if s.id == stage).attempts[-1].id

    async def step(self, shown: Mapping[str, Seen]) -> None:
        """Decide and write until there is nothing more to do; attempts of a stage are, or are made, as `shown`."""
        store, now = self._store(), self.clock.now().timestamp()
        lease = None
        for found in await store.lease("hand", limit=1000, ttl_seconds=60.0):
            if found.run_id == self.id:
                lease = found
            else:
                await store.release(found, wake_at=_DUE)
        assert lease is not None, f"{self.name} is not due at {self.clock.now()}"
        while True:
            view = await store.load(self.id)
            for stage in view.stages:
                if stage.attempts and stage.id in shown and stage.state is StageState.RUNNING:
                    self._seen[stage.attempts[-1].id] = shown[stage.id]
            known = {a.id: self._seen.get(a.id, Seen(Phase.GONE)) for stage in view.stages for a in stage.attempts}
            decision = decide(view, known, now)
            for effect in decision.before:
                if isinstance(effect, CollectArtifacts):
                    await store.collect_artifacts(lease, effect.attempt_id)
            if decision.writes:
                await store.apply(lease, view.version, decision.writes)
            for effect in decision.after:
                if isinstance(effect, CreateWorkload):
                    spec = await store.spec(effect.attempt_id)
                    self._seen[effect.attempt_id] = shown.get(spec.stage_id, Seen(Phase.PENDING))
                elif isinstance(effect, RemoveWorkload):
                    self._seen[effect.attempt_id] = Seen(Phase.GONE)
            if not decision.writes and not decision.after:
                await store.release(lease, wake_at=_DUE)
                return

    def _store(self) -> PostgresRunStore:
        root = self.store_root
        return PostgresRunStore(self.sessions, DirectoryStore(root), DirectoryConfig(root=str(root)), self.clock)


async def work(run: HandRun, hours: float, *, total: int = 1000) -> None:
    """`pretrain` starts up, works, saves every two hours and ends."""
    await run.run("pretrain")
    run.clock.turn(minutes=4)
    await run.beat("pretrain", "setup", 0, total)
    run.clock.turn(minutes=9)
    steps = max(1, round(hours / 2))
    for number in range(steps):
        await run.beat("pretrain", "train", total * number // steps, total)
        run.clock.turn(hours=hours / steps)
        await run.beat("pretrain", "save", total * (number + 1) // steps, total)
        run.clock.turn(minutes=7)
    await run.beat("pretrain", "done", total, total)


async def finish(run: HandRun) -> None:
    """`pretrain` ends well, and `evaluate` after it."""
    await run.see("pretrain", Seen(Phase.EXITED, exit_code=0))
    await run.see("evaluate", Seen(Phase.RUNNING, held_since=run.clock.now().timestamp()))
    run.clock.turn(minutes=6)
    await run.see("evaluate", Seen(Phase.EXITED, exit_code=0))


async def lose(run: HandRun, hours: float) -> None:
    """`pretrain` works for some hours, then its node dies: nothing was saved, the next attempt begins anew."""
    await run.run("pretrain")
    run.clock.turn(minutes=5)
    await run.beat("pretrain", "train", 0, 1000)
    run.clock.turn(hours=hours)
    await run.beat("pretrain", "train", 300, 1000)
    await run.see("pretrain", Seen(Phase.EXITED, node_lost=True, node="h800-0005", reason="Its node does not answer."))
    run.clock.turn(minutes=10)
    await run.step({})
    await run.run("pretrain")


async def hang(run: HandRun, hours: float) -> None:
    """A rank stops to move for some hours, until that is noticed; the next attempt begins anew."""
    await run.run("pretrain")
    run.clock.turn(minutes=5)
    await run.beat("pretrain", "train", 0, 1000)
    run.clock.turn(hours=hours)
    await run.see("pretrain", Seen(Phase.RUNNING))
    await run.see("pretrain", Seen(Phase.RUNNING, stacks_ready=True))
    await run.see("pretrain", Seen(Phase.EXITED, exit_code=137))
    run.clock.turn(minutes=10)
    await run.step({})
    await run.run("pretrain")
