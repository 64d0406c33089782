"""Any history from a seed: the same requests, leases, decisions and reports on any store. Two stores that keep the contract tell the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from typing import Any

from simulation.run_store_ground import Ground

from abruzzi.contracts.errors import Conflict, NotFound
from abruzzi.contracts.reason import Reason
from abruzzi.contracts.states import AttemptState, Cause, RunState, StageState
from abruzzi.engine.actions import CreateAttempt, SetAttempt, SetRun, SetStage, Write
from abruzzi.engine.ports import IllegalWrite, Lease, StaleLease, VersionConflict

STAGES = ("first", "second", "third")
REFUSALS = (StaleLease, VersionConflict, IllegalWrite, NotFound, Conflict)
LOOK_EVERY = 6


async def live_through(ground: Ground, seed: int, *, acts: int = 60) -> list[tuple[str, Any]]:
    """What each act gave or how it was refused, and now and then everything that is known, with runs named by their number."""
    history = _History(ground, seed)
    await history.act("submit")
    for number in range(acts):
        await history.act(history.choose())
        if number % LOOK_EVERY == 0:
            await history.look()
    await history.look()
    return history.told


class _History:
    def __init__(self, ground: Ground, seed: int) -> None:
        self.told: list[tuple[str, Any]] = []
        self._ground, self._rng = ground, random.Random(seed)
        self._runs: list[str] = []
        self._leases: list[Lease] = []
        self._versions: dict[str, int] = {}
        self._epochs: dict[str, int] = {}
        self._artifacts = 0

    def choose(self) -> str:
        acts = {
            "decide": 30, "lease": 8, "renew": 2, "release": 3, "cancel": 1, "interrupt": 1, "resume": 1, "retry": 3, "commit": 3, "collect": 4,
            "beat": 3, "submit": 1,
        }  # fmt: skip
        return self._rng.choices(list(acts), list(acts.values()))[0]

    async def act(self, name: str) -> None:
        # Never twice at one moment: which of two runs that are due since the same instant comes first is nobody's promise.
        self._ground.turn(self._rng.choice([0.25, 0.5, 2.0, 7.0]))
        self._asked: Any = None
        try:
            result = await getattr(self, f"_{name}")()
        except REFUSALS as refusal:
            result = next(kind.__name__ for kind in REFUSALS if isinstance(refusal, kind))
        self.told.append((name, self._named([self._asked, result])))

    async def look(self) -> None:
        for run_id in self._runs:
            view = await self._ground.store.load(run_id)
            self._versions[run_id], self._epochs[run_id] = view.version, view.last_epoch
            known = self._named(view)
            for stage in known["stages"]:
                stage.pop("phase_seconds")  # from heartbeats: only Postgres works them out
                for attempt in stage["attempts"]:
                    attempt.pop("resume_step")  # a checkpoint's: the simulation has no bytes to verify
            self.told.append(("view", known))
            self.told.append(("events", self._named(await self._ground.events(run_id))))
            self.told.append(("outbox", await self._ground.outbox(run_id)))

    async def _submit(self) -> str | None:
        if len(self._runs) == 3:
            return None
        self._runs.append(run_id := await self._ground.submit())
        self._versions[run_id], self._epochs[run_id] = 1, 0
        return run_id

    async def _lease(self) -> list[Lease]:
        found = await self._ground.store.lease("c", limit=10, ttl_seconds=self._rng.choice([4.0, 60.0]))
        found = sorted(found, key=lambda lease: self._runs.index(lease.run_id))
        self._leases += found
        return found

    async def _renew(self) -> Lease | None:
        lease = self._some_lease()
        return await self._ground.store.renew(lease, ttl_seconds=10.0) if lease else None

    async def _release(self) -> None:
        lease, wake_in = self._some_lease(), self._rng.choice([None, 0.0, 5.0])
        if lease is not None:
            wake_at = None if wake_in is None else self._ground.now() + wake_in
            await self._ground.store.release(lease, wake_at=wake_at)

    async def _decide(self) -> int | None:
        lease = self._some_lease()
        if lease is None:
            return None
        if self._rng.random() < 0.9:
            self._versions[lease.run_id] = (await self._ground.store.load(lease.run_id)).version
        writes = self._asked = [self._write(lease.run_id) for _ in range(self._rng.choice([1, 1, 2, 3]))]
        written = await self._ground.store.apply(lease, self._versions[lease.run_id], writes)
        assert written == await self._ground.store.load(lease.run_id)
        return written.version

    async def _cancel(self) -> None:
        await self._ground.cancel(self._rng.choice(self._runs))

    async def _interrupt(self) -> None:
        await self._ground.interrupt()

    async def _resume(self) -> None:
        await self._ground.resume()

    async def _retry(self) -> None:
        await self._ground.retry(self._rng.choice(self._runs), self._rng.choice([None, *STAGES, "nothing"]))

    async def _commit(self) -> None:
        self._artifacts += 1
        facts = {self._rng.choice(["score", "rows"]): float(self._rng.randint(0, 9))}
        await self._ground.commit(self._attempt(self._rng.choice(self._runs)), f"step-{self._artifacts:08d}", **facts)

    async def _collect(self) -> int | None:
        lease, other = self._some_lease(), self._attempt(self._rng.choice(self._runs))
        if lease is None:
            return None
        mine = self._rng.random() < 0.9
        attempt_id = self._attempt(lease.run_id) if mine else other
        return await self._ground.store.collect_artifacts(lease, attempt_id)

    async def _beat(self) -> None:
        attempt_id = self._attempt(self._rng.choice(self._runs))
        await self._ground.beat(attempt_id, 0, self._rng.randint(0, 50), self._rng.choice(["setup", "train"]))

    def _write(self, run_id: str) -> Write:
        rng = self._rng
        stage_id = rng.choice([*STAGES, *STAGES, *STAGES, "nothing"])
        match rng.choice(["create", "create", "attempt", "attempt", "attempt", "stage", "stage", "run"]):
            case "create":
                self._epochs[run_id] += rng.choice([0, 1, 1, 1])
                return CreateAttempt(stage_id, rng.choice([1, 1, 2, 3]), self._epochs[run_id])
            case "attempt":
                ended = self._ground.now() if rng.random() < 0.3 else None
                return SetAttempt(
                    self._attempt(run_id), rng.choice(list(AttemptState)), cause=rng.choice([None, None, Cause.HANG, Cause.UNKNOWN]),
                    exit_code=rng.choice([None, None, 0, 64]), reason=rng.choice([None, "why"]), ended_at=ended,
                    node=rng.choice([None, "node-1"]), workload_removed=rng.choice([None, True]), stop_cause=rng.choice([None, Cause.CANCELLED]),
                    held_at=rng.choice([None, self._ground.now()]), waits_for=rng.choice([None, "", Reason.WAITS_FOR_QUOTA]),
                )  # fmt: skip
            case "stage":
                not_before = self._ground.now() + 3 if rng.random() < 0.3 else None
                return SetStage(stage_id, rng.choice(list(StageState)), "why", not_before)
            case _:
                return SetRun(rng.choice([RunState.RUNNING, RunState.RUNNING, RunState.INTERRUPTED, *RunState]))

    def _some_lease(self) -> Lease | None:
        """Mostly the newest."""
        return self._rng.choice([*self._leases, *self._leases[-2:] * 4]) if self._leases else None

    def _attempt(self, run_id: str) -> str:
        return f"{run_id}-{self._rng.choice(STAGES)}-{self._rng.choice([1, 1, 1, 2])}"

    def _named(self, value: Any) -> Any:
        """Plain data with `run <number>` for ids, comparable between stores."""
        plain: Callable[[Any], Any] = self._named
        match value:
            case str():
                for number, run_id in enumerate(self._runs):
                    value = value.replace(run_id, f"run {number}")
                return str(value)
            case dict():
                return {plain(key): plain(inner) for key, inner in value.items()}
            case list() | tuple():
                return [plain(inner) for inner in value]
            case _ if is_dataclass(value) and not isinstance(value, type):
                return plain(asdict(value))
            case _:
                return value
