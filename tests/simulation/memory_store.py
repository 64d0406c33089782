"""A RunStore in memory, with the same contract as Postgres (run_store_contract.py holds both to it). Every await is a place to switch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace

from abruzzi.contracts.errors import NotFound
from abruzzi.contracts.stage import DirectoryStore, StageSpec, attempt_id
from abruzzi.contracts.states import AttemptState, StageKind
from abruzzi.engine.actions import CreateAttempt, SetAttempt, SetRun, SetStage, Write
from abruzzi.engine.ports import Lease, StaleLease, VersionConflict
from abruzzi.engine.view import AttemptView, Desired, RunView


class Switch:
    """Awaiting it gives the turn to the scheduler; outside of a scheduler it is nothing."""

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled

    def __await__(self) -> Generator[None, None, None]:
        if self._enabled:
            yield


@dataclass(slots=True)
class LeaseState:
    token: int = 0
    owner: str | None = None
    expires_at: float = 0.0
    wake_at: float | None = 0.0


class IllegalMove(AssertionError):
    """The database's triggers would refuse this."""


class MemoryRunStore:
    def __init__(self, runs: Sequence[RunView], *, now: Callable[[], float], switches: bool = False) -> None:
        self.runs = {run.id: run for run in runs}
        self.leases = {run.id: LeaseState() for run in runs}
        self.collected: set[str] = set()
        self._now = now
        self._switch = Switch(switches)

    def ring(self, run_id: str) -> None:
        self.leases[run_id].wake_at = self._now()

    def want(self, run_id: str, desired: Desired) -> None:
        """What a person's request writes."""
        run = self.runs[run_id]
        self.runs[run_id] = replace(run, desired=desired, version=run.version + 1)
        self.ring(run_id)

    async def lease(self, owner: str, *, limit: int, ttl_seconds: float) -> Sequence[Lease]:
        await self._switch
        now = self._now()
        found: list[Lease] = []
        for run_id, state in self.leases.items():
            free = state.owner is None or state.expires_at < now
            due = (state.wake_at is not None and state.wake_at <= now) or state.owner is not None
            if free and due and len(found) < limit:
                state.token, state.owner, state.expires_at, state.wake_at = (
                    state.token + 1,
                    owner,
                    now + ttl_seconds,
                    None,
                )
                found.append(Lease(run_id, state.token, owner, state.expires_at))
        return found

    async def renew(self, lease: Lease, *, ttl_seconds: float) -> Lease:
        await self._switch
        state = self._held(lease)
        state.expires_at = self._now() + ttl_seconds
        return replace(lease, expires_at=state.expires_at)

    async def release(self, lease: Lease, *, wake_at: float | None) -> None:
        await self._switch
        state = self.leases[lease.run_id]
        if state.token == lease.token:
            state.owner = None
            dates = [d for d in (state.wake_at, wake_at) if d is not None]
            state.wake_at = min(dates) if dates else None

    async def load(self, run_id: str) -> RunView:
        await self._switch
        if run_id not in self.runs:
            raise NotFound("run", run_id)
        return self.runs[run_id]

    async def apply(self, lease: Lease, expected_version: int, writes: Sequence[Write]) -> int:
        await self._switch
        self._held(lease)
        run = self.runs[lease.run_id]
        if run.version != expected_version:
            raise VersionConflict(run.id)
        for write in writes:
            run = _written(run, write, self._now())
        self.runs[run.id] = replace(run, version=run.version + 1)
        return run.version + 1

    async def spec(self, attempt_id: str) -> StageSpec:
        await self._switch
        _, stage_id, attempt = self.find(attempt_id)
        return _spec(attempt_id[:10], stage_id, attempt)

    async def collect_artifacts(self, lease: Lease, attempt_id: str) -> int:
        await self._switch
        self._held(lease)
        new = attempt_id not in self.collected
        self.collected.add(attempt_id)
        return int(new)

    def find(self, attempt_id: str) -> tuple[RunView, str, AttemptView]:
        for run in self.runs.values():
            for stage in run.stages:
                for attempt in stage.attempts:
                    if attempt.id == attempt_id:
                        return run, stage.id, attempt
        raise NotFound("attempt", attempt_id)

    def _held(self, lease: Lease) -> LeaseState:
        state = self.leases[lease.run_id]
        if state.token != lease.token:
            raise StaleLease(lease.run_id)
        return state


_SPECS: dict[str, StageSpec] = {}


def _spec(run_id: str, stage_id: str, attempt: AttemptView) -> StageSpec:
    if attempt.id not in _SPECS:
        _SPECS.clear() if len(_SPECS) > 1000 else None
        _SPECS[attempt.id] = StageSpec.model_construct(
            project_id="default", run_id=run_id, stage_id=stage_id, attempt_id=attempt.id, epoch=attempt.epoch, kind=StageKind.CONTAINER, config={},
            inputs={}, store=DirectoryStore(root="memory"), output_prefix="projects/default/", resume=None, world_size=1, seed=0, version=1,
        )  # fmt: skip
    return _SPECS[attempt.id]


def _written(run: RunView, write: Write, now: float) -> RunView:
    match write:
        case CreateAttempt():
            made = AttemptView(
                attempt_id(run.id, write.stage_id, write.number), write.number, write.epoch, AttemptState.CREATED, now
            )
            if write.epoch <= run.last_epoch:
                raise IllegalMove(f"epoch {write.epoch} is not above {run.last_epoch}")
            stages = tuple(
                replace(s, attempts=(*s.attempts, made)) if s.id == write.stage_id else s for s in run.stages
            )
            return replace(run, stages=stages, last_epoch=write.epoch)
        case SetAttempt():
            return replace(
                run,
                stages=tuple(
                    replace(s, attempts=tuple(_set(a, write) if a.id == write.attempt_id else a for a in s.attempts))
                    for s in run.stages
                ),
            )
        case SetStage():
            return replace(run, stages=tuple(_set_stage(s, write) if s.id == write.stage_id else s for s in run.stages))
        case SetRun():
            if run.state.is_terminal and write.state is not run.state:
                raise IllegalMove(f"run {run.id} is {run.state} and stays so")
            return replace(run, state=write.state)


def _set_stage(stage, write: SetStage):  # type: ignore[no-untyped-def]
    if stage.state.is_terminal and write.state is not stage.state:
        raise IllegalMove(f"stage {stage.id} is {stage.state} and stays so")
    return replace(stage, state=write.state, not_before=write.not_before)


def _set(attempt: AttemptView, write: SetAttempt) -> AttemptView:
    if attempt.state.is_terminal and write.state is not attempt.state:
        raise IllegalMove(f"attempt {attempt.id} is {attempt.state} and stays so")
    names = (
        "cause",
        "exit_code",
        "reason",
        "started_at",
        "ended_at",
        "stop_requested_at",
        "stop_cause",
        "stacks_requested_at",
        "node",
        "workload_removed",
    )
    given = {name: value for name in names if (value := getattr(write, name)) is not None}
    return replace(attempt, state=write.state, **given)


@dataclass(slots=True)
class Trace:
    """What happened, for the person who replays a seed."""

    entries: list[tuple[float, str, object]] = field(default_factory=list)

    def add(self, now: float, text: str, detail: object = "") -> None:
        self.entries.append((now, text, detail))

    @property
    def lines(self) -> list[str]:
        return [f"{now:9.1f}  {text} {detail}" for now, text, detail in self.entries]
