"""A RunStore in memory, with the same contract as Postgres (run_store_contract.py holds both to it). Every await is a place to switch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from abruzzi.contracts.errors import Conflict, NotFound
from abruzzi.contracts.stage import DirectoryStore, StageSpec, attempt_id
from abruzzi.contracts.states import AttemptState, RunState, StageKind, StageState
from abruzzi.engine.actions import CreateAttempt, SetAttempt, SetRun, SetStage, Write
from abruzzi.engine.ports import IllegalWrite, Lease, StaleLease, VersionConflict
from abruzzi.engine.view import AttemptView, Desired, RankBeat, RunView, StageView

RUNG_FIRST_SECONDS = 3650 * 86_400.0


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


@dataclass(frozen=True, slots=True)
class Told:
    """An event: `subject` is the attempt's or stage's id, or empty for the run's own."""

    kind: str
    subject: str
    state: str


class IllegalMove(IllegalWrite, AssertionError):
    """The database's triggers and keys would refuse this; in the simulation it is the end of the seed."""


class MemoryRunStore:
    """What people, stages and processes do to the database are plain methods; the port's are async."""

    def __init__(self, runs: Sequence[RunView], *, now: Callable[[], float], switches: bool = False) -> None:
        self.runs: dict[str, RunView] = {}
        self.leases: dict[str, LeaseState] = {}
        self.events: dict[str, list[Told]] = {}
        self.outbox: list[tuple[str, str]] = []
        """(kind, run id)"""
        self.collected: set[str] = set()
        """Attempts whose artifacts were looked for."""
        self._now = now
        self._switch = Switch(switches)
        self._earlier: dict[str, AttemptView] = {}
        """Attempts of earlier revisions, which are in no view."""
        self._committed: dict[str, dict[str, Mapping[str, float]]] = {}
        """What lies in the object store: {attempt id: {name: facts}}."""
        self._registered: set[tuple[str, str]] = set()
        self._specs: dict[str, StageSpec] = {}
        for run in runs:
            self.add(run)

    # What people and processes do

    def add(self, run: RunView) -> None:
        self.runs[run.id], self.leases[run.id], self.events[run.id] = run, LeaseState(wake_at=self._now()), []
        self.outbox.append(("run.submitted", run.id))
        self._tell(run.id, "run.state", "", run.state)

    def ring(self, run_id: str) -> None:
        self.leases[run_id].wake_at = self._now()

    def cancel(self, run_id: str) -> None:
        run = self.runs[run_id]
        if run.state is RunState.CANCELLED or run.desired is Desired.CANCEL:
            return
        if run.state.is_terminal:
            raise Conflict(f"Run {run_id} has {run.state}.")
        self._want(run_id, Desired.CANCEL)
        if run.state is not RunState.CANCELLING:
            self.runs[run_id] = replace(self.runs[run_id], state=RunState.CANCELLING)
            self._tell(run_id, "run.state", "", RunState.CANCELLING)

    def interrupt_all(self) -> None:
        for run in list(self.runs.values()):
            if run.desired is Desired.RUN and not run.state.is_terminal:
                self._want(run.id, Desired.INTERRUPT)

    def resume_interrupted(self) -> None:
        for run in list(self.runs.values()):
            if run.desired is Desired.INTERRUPT:
                self._want(run.id, Desired.RUN)

    def retry(self, run_id: str, stage_id: str | None = None) -> None:
        run = self.runs[run_id]
        if run.state not in (RunState.FAILED, RunState.CANCELLED):
            raise Conflict(f"Run {run_id} is {run.state}.")
        if stage_id is not None and stage_id not in {s.id for s in run.stages}:
            raise NotFound("stage", stage_id)
        again = {s.id for s in run.stages if s.state is not StageState.SUCCEEDED} | ({stage_id} if stage_id else set())
        while more := {s.id for s in run.stages if s.id not in again and again & set(s.needs)}:
            again |= more
        for stage in run.stages:
            if stage.id in again:
                self._earlier |= {a.id: a for a in stage.attempts}
                self._tell(run_id, "stage.state", stage.id, StageState.WAITING)
        stages = tuple(_again(s) if s.id in again else s for s in run.stages)
        self.runs[run_id] = replace(run, state=RunState.PENDING, stages=stages)
        self._tell(run_id, "run.state", "", RunState.PENDING)
        self._want(run_id, Desired.RUN)

    def branch(self, parent_id: str, stage_id: str, name: str, *, child_id: str) -> None:
        """A run that goes on from the checkpoint `name` of the parent's stage: what comes before it counts as done."""
        stages = {s.id: s for s in self.runs[parent_id].stages}
        chosen = next(c[name] for a in stages[stage_id].attempts if name in (c := self._committed.get(a.id, {})))
        done: set[str] = set()
        below = list(stages[stage_id].needs)
        while below:
            done.add(above := below.pop())
            below += stages[above].needs
        made = [
            StageView(
                s.id, StageState.SUCCEEDED if s.id in done else StageState.WAITING, s.needs, s.gate, s.max_attempts, s.world_size,
                facts=s.facts if s.id in done else chosen if s.id == stage_id else {}, hang_seconds=s.hang_seconds,
            )
            for s in stages.values()
        ]  # fmt: skip
        self.add(RunView(child_id, RunState.PENDING, Desired.RUN, 1, tuple(made)))

    def commit(self, attempt_id: str, name: str, facts: Mapping[str, float]) -> None:
        """An attempt's process commits an artifact to the object store; the database does not know it yet."""
        self.find(attempt_id)
        self._committed.setdefault(attempt_id, {})[name] = facts

    def beat(self, attempt_id: str, rank: int, step: int, phase: str) -> None:
        run, stage_id, attempt = self.find(attempt_id)
        if attempt.state.is_terminal:
            raise Conflict(f"Attempt {attempt_id} has ended.")
        known = attempt.beats.get(rank)
        if known is None or self._now() > known.at:
            beats = {**attempt.beats, rank: RankBeat(step, phase, self._now())}
            self.runs[run.id] = _with_attempt(run, stage_id, replace(attempt, beats=beats))

    # The port

    async def lease(self, owner: str, *, limit: int, ttl_seconds: float) -> Sequence[Lease]:
        await self._switch
        now = self._now()
        found: list[Lease] = []
        due = [
            (state.wake_at if state.wake_at is not None else float("-inf"), run_id)
            for run_id, state in self.leases.items()
            if (state.owner is None or state.expires_at < now)
            and ((state.wake_at is not None and state.wake_at <= now) or state.owner is not None)
        ]
        for _, run_id in sorted(due, key=lambda d: d[0])[:limit]:
            state = self.leases[run_id]
            state.token, state.owner, state.expires_at, state.wake_at = state.token + 1, owner, now + ttl_seconds, None
            found.append(Lease(run_id, state.token, owner, state.expires_at))
        return found

    async def wake(self, run_ids: Collection[str]) -> None:
        await self._switch
        for run_id in run_ids:
            if (state := self.leases.get(run_id)) is not None:
                due = self._now() - RUNG_FIRST_SECONDS
                state.wake_at = due if state.wake_at is None else min(state.wake_at, due)

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

    async def apply(self, lease: Lease, expected_version: int, writes: Sequence[Write]) -> RunView:
        await self._switch
        self._held(lease)
        run = self.runs[lease.run_id]
        if run.version != expected_version:
            raise VersionConflict(run.id)
        told: list[Told] = []
        earlier = dict(self._earlier)
        try:
            for write in writes:
                run = self._written(run, write, told)
        except Exception:
            self._earlier = earlier
            raise
        self.runs[run.id] = written = replace(run, version=run.version + 1)
        self.events[run.id] += told
        if any(not t.subject and RunState(t.state).is_terminal for t in told):
            self.outbox.append(("run.ended", run.id))
        return written

    async def spec(self, attempt_id: str) -> StageSpec:
        await self._switch
        if attempt_id not in self._specs:
            run, stage_id, attempt = self.find(attempt_id)
            stage = _stage(run, stage_id)
            self._specs[attempt_id] = StageSpec.model_construct(
                project_id="default", run_id=run.id, stage_id=stage_id, attempt_id=attempt_id, epoch=attempt.epoch, kind=StageKind.CONTAINER, config={},
                inputs={}, store=_STORE, output_prefix=f"projects/default/runs/{run.id}/{stage_id}/", resume=None, world_size=stage.ranks_of(attempt),
                seed=0, version=1,
            )  # fmt: skip
        return self._specs[attempt_id]

    async def collect_artifacts(self, lease: Lease, attempt_id: str) -> int:
        await self._switch
        self._held(lease)
        run, stage_id, _ = self.find(attempt_id)
        if run.id != lease.run_id:
            raise NotFound("attempt", attempt_id)
        self.collected.add(attempt_id)
        found = self._committed.get(attempt_id, {})
        new = [name for name in found if (attempt_id, name) not in self._registered]
        if found:
            self._registered |= {(attempt_id, name) for name in new}
            stage = _stage(run, stage_id)
            facts = dict(stage.facts)
            for name in found:
                facts |= found[name]
            self.runs[run.id] = _with_stage(run, replace(stage, facts=facts))
            for name in new:
                self._tell(run.id, "artifact.created", stage_id, name)
        return len(new)

    def find(self, attempt_id: str) -> tuple[RunView, str, AttemptView]:
        """Also of an earlier revision. Raises NotFound."""
        for run in self.runs.values():
            for stage in run.stages:
                for attempt in stage.attempts:
                    if attempt.id == attempt_id:
                        return run, stage.id, attempt
        if attempt_id in self._earlier:
            run_id, stage_id = attempt_id.rsplit("-", 1)[0].split("-", 1)
            return self.runs[run_id], stage_id, self._earlier[attempt_id]
        raise NotFound("attempt", attempt_id)

    def _held(self, lease: Lease) -> LeaseState:
        state = self.leases[lease.run_id]
        if state.token != lease.token or state.owner is None:
            raise StaleLease(lease.run_id)
        return state

    def _want(self, run_id: str, desired: Desired) -> None:
        run = self.runs[run_id]
        self.runs[run_id] = replace(run, desired=desired, version=run.version + 1)
        self.ring(run_id)

    def _tell(self, run_id: str, kind: str, subject: str, state: str) -> None:
        self.events[run_id].append(Told(kind, subject, str(state)))

    def _written(self, run: RunView, write: Write, told: list[Told]) -> RunView:
        match write:
            case CreateAttempt():
                return self._with_new(run, write, told)
            case SetAttempt():
                return self._with_moved(run, write, told)
            case SetStage():
                stage = _stage(run, write.stage_id)
                if stage.state.is_terminal and write.state is not stage.state:
                    raise IllegalMove(f"stage {stage.id} is {stage.state} and stays so")
                if write.state is not stage.state:
                    told.append(Told("stage.state", stage.id, write.state.value))
                return _with_stage(run, replace(stage, state=write.state, not_before=write.not_before))
            case SetRun():
                if run.state.is_terminal and write.state is not run.state:
                    raise IllegalMove(f"run {run.id} is {run.state} and stays so")
                if write.state is not run.state:
                    told.append(Told("run.state", "", write.state.value))
                return replace(run, state=write.state)

    def _with_new(self, run: RunView, write: CreateAttempt, told: list[Told]) -> RunView:
        stage = _stage(run, write.stage_id)
        made = AttemptView(
            attempt_id(run.id, stage.id, write.number), write.number, write.epoch, AttemptState.CREATED, self._now(),
            world_size=write.world_size,
        )  # fmt: skip
        if write.epoch <= run.last_epoch:
            raise IllegalMove(f"epoch {write.epoch} is not above {run.last_epoch}")
        if made.id in self._earlier or any(a.id == made.id for a in stage.attempts):
            raise IllegalMove(f"attempt {made.id} exists")
        told.append(Told("attempt.state", made.id, made.state.value))
        return replace(_with_stage(run, replace(stage, attempts=(*stage.attempts, made))), last_epoch=write.epoch)

    def _with_moved(self, run: RunView, write: SetAttempt, told: list[Told]) -> RunView:
        for stage in run.stages:
            for attempt in stage.attempts:
                if attempt.id == write.attempt_id:
                    return _with_attempt(run, stage.id, _moved(attempt, write, self._now(), told))
        earlier = self._earlier.get(write.attempt_id)
        if earlier is None or not earlier.id.startswith(run.id):
            raise NotFound("attempt", write.attempt_id)
        self._earlier[earlier.id] = _moved(earlier, write, self._now(), told)
        return run


_STORE = DirectoryStore(root="memory")
_GIVEN = (
    "cause", "exit_code", "reason", "started_at", "ended_at", "stop_requested_at", "stop_cause", "stacks_requested_at", "node",
    "workload_removed", "held_at", "waits_for", "resize_to",
)  # fmt: skip


def _moved(attempt: AttemptView, write: SetAttempt, now: float, told: list[Told]) -> AttemptView:
    given: dict[str, Any] = {name: value for name in _GIVEN if (value := getattr(write, name)) is not None}
    if write.reason == "":
        given["reason"] = None
    if write.waits_for == "":
        given["waits_for"] = None
    moved = replace(attempt, state=write.state, **given)
    if attempt.state.is_terminal and (moved.state, moved.cause, moved.exit_code) != (
        attempt.state,
        attempt.cause,
        attempt.exit_code,
    ):
        raise IllegalMove(f"attempt {attempt.id} is {attempt.state} and stays so")
    if moved.state is not attempt.state:
        told.append(Told("attempt.state", attempt.id, moved.state.value))
    return replace(moved, ended_at=now) if moved.state.is_terminal and moved.ended_at is None else moved


def _again(stage: StageView) -> StageView:
    before = stage.attempts_before + len(stage.attempts)
    return replace(stage, state=StageState.WAITING, not_before=None, attempts=(), attempts_before=before)


def _stage(run: RunView, stage_id: str) -> StageView:
    found = next((s for s in run.stages if s.id == stage_id), None)
    if found is None:
        raise NotFound("stage", stage_id)
    return found


def _with_stage(run: RunView, changed: StageView) -> RunView:
    return replace(run, stages=tuple(changed if s.id == changed.id else s for s in run.stages))


def _with_attempt(run: RunView, stage_id: str, changed: AttemptView) -> RunView:
    stage = _stage(run, stage_id)
    return _with_stage(
        run, replace(stage, attempts=tuple(changed if a.id == changed.id else a for a in stage.attempts))
    )


@dataclass(slots=True)
class Trace:
    """What happened, for the person who replays a seed."""

    entries: list[tuple[float, str, object]] = field(default_factory=list)

    def add(self, now: float, text: str, detail: object = "") -> None:
        self.entries.append((now, text, detail))

    @property
    def lines(self) -> list[str]:
        return [f"{now:9.1f}  {text} {detail}" for now, text, detail in self.entries]
