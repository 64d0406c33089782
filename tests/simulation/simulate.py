"""One seed: two controllers, a store and an executor that may fail at every point, and the rules that must hold whatever happens."""

from __future__ import annotations

import contextlib
import math
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from simulation.memory_executor import Fate, MemoryExecutor
from simulation.memory_store import MemoryRunStore, Trace

from abruzzi.contracts.errors import NotFound
from abruzzi.contracts.states import AttemptState, Cause, RunState, StageState
from abruzzi.engine.actions import SetAttempt
from abruzzi.engine.policy import POISON_AFTER, RULES
from abruzzi.engine.ports import Lease, StaleLease
from abruzzi.engine.view import Desired, Elastic, Phase, RunView, Seen, StageView
from abruzzi_operators.controller.controller import Controller, ControllerConfig

CALM_AFTER = 600.0
"""Simulated seconds with faults; afterwards everything must come to its end."""
END_AFTER = 20_000.0
LEASE_SECONDS = 15.0
STORE_WRITES = ("lease", "renew", "release", "apply", "collect_artifacts", "spec")
EXECUTOR_EFFECTS = ("create", "stop", "dump_stacks", "remove")
FAULT_POINTS = {f"{when} {name}" for name in (*STORE_WRITES, *EXECUTOR_EFFECTS) for when in ("before", "after")} | {
    "unknown observe",
    "stale observe",
    "retry by a person",
    "doomed stage",
    "fewer ranks",
    "more ranks",
}


class Crash(BaseException):
    """The controller process dies here."""


class Violation(AssertionError):
    """A rule was broken."""


@dataclass(slots=True)
class Outcome:
    runs: dict[str, RunView]
    faults: Counter[str]
    trace: Trace
    steps: int


@dataclass(slots=True)
class World:
    """Everything of one seed. `lie` lets a planted bug change what the executor reports."""

    seed: int
    rng: random.Random = field(init=False)
    now: float = 1_000.0
    faults: Counter[str] = field(default_factory=Counter)
    trace: Trace = field(default_factory=Trace)
    lie: Callable[[Seen], Seen] | None = None
    broken: str | None = None
    """The rule that was broken: a controller that goes on after an error must not hide it."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    @property
    def is_calm(self) -> bool:
        return self.now > 1_000.0 + CALM_AFTER


class Faulty:
    """Stands before a store or an executor: crashes before and after writes and effects, lost and stale observations."""

    def __init__(self, inner: Any, world: World, rate: float, watch: Watch) -> None:
        self._inner, self._world, self._rate, self._watch = inner, world, rate, watch
        self._last: dict[str, Seen] = {}
        self.held: Lease | None = None
        """Renewed now and then while its step goes on, as Controller.handle does beside it."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name == "observe":
            return self._observe
        if name not in STORE_WRITES and name not in EXECUTOR_EFFECTS:
            return method

        async def guarded(*args: Any, **options: Any) -> Any:
            if name in ("apply", "collect_artifacts", "spec") and self.held is not None:
                await self._renew(self.held)
            self._maybe_crash(f"before {name}")
            self._watch.about_to(name, args)
            result = await method(*args, **options)
            self._watch.did(name, args)
            self._maybe_crash(f"after {name}")
            return result

        return guarded

    async def _renew(self, lease: Lease) -> None:
        if self._world.rng.random() < 0.1:
            self._maybe_crash("before renew")
            with contextlib.suppress(StaleLease):  # the step finds out by itself
                await self._inner.renew(lease, ttl_seconds=LEASE_SECONDS)
            self._maybe_crash("after renew")

    async def _observe(self, attempt_ids: Sequence[str]) -> Mapping[str, Seen]:
        found = dict(await self._inner.observe(attempt_ids))
        for attempt_id, seen in found.items():
            if not self._world.is_calm and self._world.rng.random() < self._rate:
                stale = self._last.get(attempt_id)
                if stale is not None and stale.phase is not Phase.GONE and self._world.rng.random() < 0.5:
                    self._world.faults["stale observe"] += 1
                    found[attempt_id] = stale
                else:
                    self._world.faults["unknown observe"] += 1
                    found[attempt_id] = Seen(Phase.UNKNOWN)
            self._last[attempt_id] = seen
            if self._world.lie is not None:
                found[attempt_id] = self._world.lie(found[attempt_id])
        return found

    def _maybe_crash(self, point: str) -> None:
        if not self._world.is_calm and self._world.rng.random() < self._rate:
            self._world.faults[point] += 1
            self._world.trace.add(self._world.now, f"CRASH {point}")
            raise Crash(point)


class Watch:
    """The rules, checked at every write and effect, and at every tick."""

    def __init__(self, world: World, store: MemoryRunStore, executor: MemoryExecutor) -> None:
        self._world, self._store, self._executor = world, store, executor
        self._epochs: dict[str, int] = {}
        self._ended: dict[str, tuple[AttemptState, Cause | None, int | None]] = {}
        self._held: dict[str, float] = {}
        self._cancelled_at_attempts: dict[str, int] = {}

    def about_to(self, name: str, args: Sequence[Any]) -> None:
        if name == "create":
            spec = args[0]
            self._require(self._known(spec.attempt_id), f"{spec.attempt_id} is created before its intent is committed")
        elif name == "remove" and self._known(args[0]):
            _, _, attempt = self._store.find(args[0])
            # What was never seen to start, and whose stop is on record, has no outcome that could be lost.
            unmade = attempt.stop_requested_at is not None and attempt.started_at is None
            self._require(attempt.state.is_terminal or unmade, f"{args[0]} is removed before its outcome is committed")

    def did(self, name: str, args: Sequence[Any]) -> None:
        if name == "apply":
            lease: Lease = args[0]
            self._world.trace.add(self._world.now, f"{lease.owner} wrote", args[2])
            for write in args[2]:
                if isinstance(write, SetAttempt) and write.resize_to is not None:
                    run, stage_id, attempt = self._store.find(write.attempt_id)
                    stage = next(s for s in run.stages if s.id == stage_id)
                    fewer = write.resize_to < stage.ranks_of(attempt)
                    self._world.faults["fewer ranks" if fewer else "more ranks"] += 1
            self._require(
                self._store.leases[lease.run_id].token == lease.token, f"a stale lease of {lease.run_id} wrote"
            )
            self._check_run(self._store.runs[lease.run_id])
        elif name in EXECUTOR_EFFECTS:
            shown = args[0] if isinstance(args[0], str) else args[0].attempt_id
            self._world.trace.add(self._world.now, f"{name} {shown}")
        self.check_workloads()

    def check_workloads(self) -> None:
        running = [p.spec.world_size for p in self._executor.processes.values() if p.is_alive and p.has_turn]
        fits = sum(running) <= self._executor.cpus or len(running) == 1
        self._require(fits, f"{running} ranks run on {self._executor.cpus} processors")
        if len(self._executor.processes) < 2:
            return
        seen: set[str] = set()
        for attempt_id, process in self._executor.processes.items():
            if process.is_alive:
                stage = attempt_id.rsplit("-", 1)[0]
                self._require(stage not in seen, f"two live workloads of {stage}")
                seen.add(stage)

    def cancelled(self, run_id: str) -> None:
        self._cancelled_at_attempts[run_id] = sum(len(s.attempts) for s in self._store.runs[run_id].stages)

    def retried(self, run_id: str) -> None:
        self._cancelled_at_attempts.pop(run_id, None)

    def _check_run(self, run: RunView) -> None:
        epochs = sorted(a.epoch for s in run.stages for a in s.attempts)
        self._require(len(set(epochs)) == len(epochs), f"{run.id}: epochs repeat: {epochs}")
        self._require(run.last_epoch >= self._epochs.get(run.id, 0), f"{run.id}: the epoch fell")
        self._epochs[run.id] = run.last_epoch
        limit = self._cancelled_at_attempts.get(run.id)
        if limit is not None and run.desired is Desired.CANCEL:
            # One decision that was under way when the cancel came is refused by its version.
            self._require(
                sum(len(s.attempts) for s in run.stages) <= limit, f"{run.id}: a new attempt after the cancel"
            )
        for stage in run.stages:
            self._check_stage(stage)

    def _check_stage(self, stage: StageView) -> None:
        for attempt in stage.attempts:
            runs = attempt.state is AttemptState.RUNNING
            self._require(not runs or attempt.held_at is not None, f"{attempt.id} runs and holds nothing")
            if attempt.held_at is not None:
                first = self._held.setdefault(attempt.id, attempt.held_at)
                self._require(first == attempt.held_at, f"{attempt.id}: since when it holds its place changed")
            if attempt.state.is_terminal:
                ended = (attempt.state, attempt.cause, attempt.exit_code)
                process = self._executor.processes.get(attempt.id)
                lives = attempt.id not in self._ended and process is not None and process.is_alive
                self._require(not lives, f"{attempt.id} is called {attempt.state} while its process lives")
                self._require(self._ended.setdefault(attempt.id, ended) == ended, f"{attempt.id}: its outcome changed")
        widths = stage.elastic.widths if stage.elastic is not None else (stage.world_size,)
        for attempt in stage.attempts:
            self._require(
                stage.ranks_of(attempt) in widths, f"{attempt.id} has {attempt.world_size} ranks, not {widths}"
            )
        for before, after in pairwise(stage.attempts):
            ranks = before.resize_to or stage.ranks_of(before)
            self._require(stage.ranks_of(after) == ranks, f"{after.id} has not the {ranks} ranks of what came before")
        for earlier in stage.attempts[:-1]:
            never = earlier.cause in (Cause.USER_ERROR, Cause.BAD_DATA, Cause.OUT_OF_MEMORY, Cause.CANCELLED)
            self._require(not never, f"{earlier.id} ended with {earlier.cause} and was retried")
            self._require(earlier.state.is_terminal, f"{earlier.id} has a successor and has not ended")
        counted = sum(
            a.state is AttemptState.FAILED and a.cause is not None and not RULES[a.cause].free for a in stage.attempts
        )
        self._require(
            counted <= stage.max_attempts, f"{stage.id}: {counted} failures count, {stage.max_attempts} are allowed"
        )
        if stage.state is StageState.SUCCEEDED:
            last = stage.attempts[-1]
            self._require(last.state is AttemptState.SUCCEEDED, f"{stage.id} is called done, {last.id} is {last.state}")
            self._require(last.id in self._store.collected, f"{stage.id} is called done before its artifacts are known")

    def _known(self, attempt_id: str) -> bool:
        """Also of an earlier revision: a create that comes late is of an intent that was committed."""
        try:
            self._store.find(attempt_id)
        except NotFound:
            return False
        return True

    def _require(self, holds: bool, rule: str) -> None:
        if not holds:
            self._world.broken = f"seed {self._world.seed} at {self._world.now:.1f}: {rule}"
            raise Violation(self._world.broken)


def simulate(seed: int, *, lie: Callable[[Seen], Seen] | None = None) -> Outcome:
    """Raises Violation (or the store's IllegalMove) when a rule is broken."""
    world = World(seed, lie=lie)
    rng = world.rng
    runs = _some_elastic(_runs(rng), random.Random(-2 - seed))  # of its own, as below
    store = MemoryRunStore(runs, now=lambda: world.now, switches=True)
    fates = _Fates(world)
    cpus = random.Random(-1 - seed).choice([math.inf, 1.0, 2.0])  # of its own: the other draws stay as they are
    executor = MemoryExecutor(fates, now=lambda: world.now, rng=rng, switches=True, cpus=cpus)
    watch = Watch(world, store, executor)
    rate = rng.choice([0.0, 0.02, 0.08, 0.2])
    controllers = [_Turns(f"c{i}", world, store, executor, watch, rate) for i in range(rng.choice([1, 2, 2]))]
    people = _People(world, store, watch)
    steps = 0
    while not all(r.state.is_terminal for r in store.runs.values()) or executor.processes:
        steps += 1
        world.now += rng.choice([0.5, 1.0, 3.0, 8.0]) if not world.is_calm else 4.0 if executor.live() else 20.0
        executor.tick()
        people.act()
        rng.choice(controllers).advance(rng.randint(1, 12) if not world.is_calm else 40)
        if world.broken:
            raise Violation(world.broken)
        if world.now > END_AFTER:
            stuck = {
                r.id: (r.state, [(s.id, s.state, [a.state for a in s.attempts]) for s in r.stages])
                for r in store.runs.values()
            }
            raise Violation(f"seed {seed}: it does not come to an end: {stuck}")
    _check_end(seed, store, people, fates)
    return Outcome(dict(store.runs), world.faults, world.trace, steps)


class _Turns:
    """A controller process as a coroutine that the scheduler advances, freezes and kills."""

    def __init__(
        self, name: str, world: World, store: MemoryRunStore, executor: MemoryExecutor, watch: Watch, rate: float
    ) -> None:
        self._name, self._world, self._watch = name, world, watch
        self._store, self._executor = Faulty(store, world, rate, watch), Faulty(executor, world, rate, watch)
        self._birth = 0
        self._work: Coroutine[Any, Any, None] | None = None

    def advance(self, turns: int) -> None:
        for _ in range(turns):
            if self._work is None:
                self._birth += 1
                self._work = self._live(f"{self._name}.{self._birth}")
            try:
                self._work.send(None)
            except (StopIteration, Crash):
                self._work = None
                return

    async def _live(self, owner: str) -> None:
        config = ControllerConfig(owner=owner, lease_seconds=LEASE_SECONDS)
        controller = Controller(self._store, self._executor, now=lambda: self._world.now, config=config)
        if self._world.rng.random() < 0.05:
            await controller.collect_orphans()
        for lease in await self._store.lease(owner, limit=2, ttl_seconds=LEASE_SECONDS):
            self._store.held = lease
            try:
                wake_at = await controller.step(lease)
            except StaleLease:
                self._world.trace.add(self._world.now, f"{owner} lost {lease.run_id}")
                continue
            except NotFound as error:
                raise Violation(f"seed {self._world.seed} at {self._world.now:.1f}: {error}") from error
            finally:
                self._store.held = None
            await self._store.release(lease, wake_at=wake_at)


class _People:
    """Cancel, interrupt, continue and retry, at any time."""

    def __init__(self, world: World, store: MemoryRunStore, watch: Watch) -> None:
        self._world, self._store, self._watch = world, store, watch
        self.cancelled: set[str] = set()
        self._interrupted = False

    def act(self) -> None:
        rng = self._world.rng
        if self._world.is_calm:
            if self._interrupted:
                self._interrupt(False)
        elif rng.random() < 0.004:
            run = self._store.runs[rng.choice(list(self._store.runs))]
            if not run.state.is_terminal and run.desired is Desired.RUN:
                self.cancelled.add(run.id)
                self._watch.cancelled(run.id)
                self._world.trace.add(self._world.now, f"a person cancels {run.id}")
                self._store.cancel(run.id)
        elif rng.random() < 0.006:
            self._interrupt(not self._interrupted)
        elif rng.random() < 0.03:
            self._retry([r for r in self._store.runs.values() if r.state in (RunState.FAILED, RunState.CANCELLED)])

    def _interrupt(self, on: bool) -> None:
        self._interrupted = on
        self._world.trace.add(self._world.now, "the platform goes down" if on else "the platform is up again")
        if on:
            self._store.interrupt_all()
        else:
            self._store.resume_interrupted()

    def _retry(self, ended: Sequence[RunView]) -> None:
        if ended:
            run = self._world.rng.choice(ended)
            stage_id = self._world.rng.choice([None, *(s.id for s in run.stages)])
            self._world.faults["retry by a person"] += 1
            self._world.trace.add(self._world.now, f"a person retries {run.id} from {stage_id or 'what failed'}")
            self.cancelled.discard(run.id)
            self._watch.retried(run.id)
            self._store.retry(run.id, stage_id)


def _check_end(seed: int, store: MemoryRunStore, people: _People, fates: _Fates) -> None:
    for run in store.runs.values():
        states = [s.state for s in run.stages]
        if run.state is RunState.SUCCEEDED and set(states) != {StageState.SUCCEEDED}:
            raise Violation(f"seed {seed}: {run.id} succeeded with stages {states}")
        if run.state is RunState.CANCELLED and run.id not in people.cancelled:
            raise Violation(f"seed {seed}: {run.id} is cancelled, but nobody asked for it")
        if run.state is RunState.FAILED and StageState.FAILED not in states:
            raise Violation(f"seed {seed}: {run.id} failed without a failed stage: {states}")
        for stage in run.stages:
            if stage.state is StageState.FAILED and not _may_fail(stage):
                causes = [a.cause for a in stage.attempts]
                raise Violation(f"seed {seed}: {run.id} {stage.id} was given up though {causes} may be retried")
            if f"{run.id}-{stage.id}" in fates.doomed and stage.attempts and stage.state not in _ENDS_OF_DOOMED:
                raise Violation(f"seed {seed}: {run.id} {stage.id} can only fail, but is called {stage.state}")


def _may_fail(stage: StageView) -> bool:
    last = stage.attempts[-1].cause
    if last is None or not RULES[last].retried:
        return last is not None
    if RULES[last].free:
        return len(stage.attempts) >= POISON_AFTER
    return sum(a.cause is not None and not RULES[a.cause].free for a in stage.attempts) >= stage.max_attempts


_ENDS_OF_DOOMED = (StageState.FAILED, StageState.CANCELLED)


def _runs(rng: random.Random) -> list[RunView]:
    made = []
    for index in range(rng.choice([1, 1, 2])):
        ids = [f"s{i}" for i in range(rng.choice([1, 2, 3]))]
        stages = tuple(
            StageView(
                id=name, state=StageState.WAITING, needs=tuple(n for n in ids[:i] if rng.random() < 0.6), max_attempts=rng.choice([1, 2, 3]),
                hang_seconds=rng.choice([None, 60.0]), phase_seconds={"train": 1.0},
            )
            for i, name in enumerate(ids)
        )  # fmt: skip
        made.append(RunView(f"run{index:07d}", RunState.PENDING, Desired.RUN, 1, stages))
    return made


def _some_elastic(runs: Sequence[RunView], rng: random.Random) -> list[RunView]:
    """A third of the stages may run with one rank instead of two, so as not to wait for a machine that others have."""

    def maybe(stage: StageView) -> StageView:
        if rng.random() > 0.33:
            return stage
        return replace(stage, world_size=2, elastic=Elastic((2, 1), narrow_after=10.0, widen_after=10.0))

    return [replace(run, stages=tuple(maybe(stage) for stage in run.stages)) for run in runs]


_CODES: Sequence[tuple[int | None, float]] = (
    (0, 0.6),
    (64, 0.04),
    (65, 0.03),
    (75, 0.06),
    (76, 0.04),
    (137, 0.08),
    (143, 0.03),
    (1, 0.05),
    (None, 0.07),
)


class _Fates:
    """What becomes of each process. Some stages are doomed: whatever is tried, they end the same free way, or by turns, for ever."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.doomed: dict[str, tuple[int, ...]] = {}
        self._known: set[str] = set()

    def __call__(self, attempt_id: str) -> Fate:
        rng, stage = self._world.rng, attempt_id.rsplit("-", 1)[0]
        if stage not in self._known:
            self._known.add(stage)
            if rng.random() < 0.02:
                self.doomed[stage] = rng.choice([(75,), (137,), (143,), (143, 75), (137, 143, 75)])
                self._world.faults["doomed stage"] += 1
        if stage in self.doomed:
            codes = self.doomed[stage]
            return Fate(codes[int(attempt_id.rsplit("-", 1)[1]) % len(codes)], rng.uniform(0, 60))
        return _fate(rng)


def _fate(rng: random.Random) -> Fate:
    code = rng.choices([c for c, _ in _CODES], [w for _, w in _CODES])[0]
    killed = code == 137
    return Fate(
        code,
        rng.uniform(0, 60),
        out_of_memory=killed and rng.random() < 0.2,
        node_lost=killed and rng.random() < 0.2,
        listens=rng.random() < 0.8,
    )
