"""The run controller's loop: lease runs, observe their workloads, decide, act. The same code runs in the simulation.

All knowledge is in the store and the executor; a controller that dies at any point loses nothing, and a second one only takes turns.
A run whose step fails is set aside with a growing delay; the others do not notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from prometheus_client import Counter, Histogram

from abruzzi.contracts.errors import AbruzziError, NotFound
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import AttemptState, Cause
from abruzzi.engine.actions import (
    CollectArtifacts,
    CreateWorkload,
    DumpStacks,
    Effect,
    RemoveWorkload,
    SetAttempt,
    StopWorkload,
)
from abruzzi.engine.decide import decide, excluded_nodes
from abruzzi.engine.ports import Executor, Lease, RunStore, SpecConflict, StaleLease, VersionConflict
from abruzzi.engine.view import RunView

logger = logging.getLogger(__name__)
STEPS = Histogram("abruzzi_controller_step_seconds", "Time that one leased run took, from its lease until it was quiet")
FAILURES = Counter("abruzzi_controller_failures_total", "Steps of a run that failed and are tried again")

_STEPS_AT_ONCE = 32
"""Decisions in a row for one run before it is given back, so that no run starves the others."""
_RUN_ID_LENGTH = 10


@dataclass(frozen=True, slots=True)
class ControllerConfig:
    owner: str
    """Unique name of this controller process."""
    lease_seconds: float = 15.0
    runs_at_once: int = 16
    look_seconds: float = 0.5
    """How often due runs are looked for when nothing rings."""
    orphan_seconds: float = 60.0
    first_delay_seconds: float = 1.0
    most_delay_seconds: float = 120.0


class Controller:
    """`now` gives Unix seconds."""

    def __init__(
        self,
        store: RunStore,
        executor: Executor,
        *,
        now: Callable[[], float],
        config: ControllerConfig,
        heard_since: Callable[[], float | None] = lambda: 0.0,
        changed: Callable[[], Awaitable[Collection[str]]] | None = None,
    ) -> None:
        """`heard_since`: see Seen. `changed`: waits for attempts that the executor has news of; without it runs are looked at every second."""
        self._store = store
        self._executor = executor
        self._now = now
        self._heard_since = heard_since
        self._changed = changed
        self._config = config
        self._failures: dict[str, int] = {}
        self.doorbell = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; then it finishes what it holds. Workloads go on: the next controller adopts them."""
        held: set[asyncio.Task[None]] = set()
        beside = [asyncio.create_task(self._look_for_orphans())]
        if self._changed is not None:
            beside.append(asyncio.create_task(self._listen(self._changed)))
        while not stop.is_set():
            free = self._config.runs_at_once - len(held)
            try:
                for lease in (
                    await self._store.lease(self._config.owner, limit=free, ttl_seconds=self._config.lease_seconds)
                    if free > 0
                    else ()
                ):
                    held.add(asyncio.create_task(self.handle(lease)))
            except Exception:
                # The database is away: nothing is lost, look again.
                logger.exception("cannot look for runs; trying again")
                await asyncio.sleep(self._config.look_seconds)
            await self._wait(stop, held)
            held = {task for task in held if not task.done()}
        for task in beside:
            task.cancel()
        if held:
            await asyncio.wait(held, timeout=self._config.lease_seconds)

    async def _listen(self, changed: Callable[[], Awaitable[Collection[str]]]) -> None:
        """Rings for the runs of attempts with news."""
        runs: set[str] = set()
        while True:
            try:
                if not runs:  # else the database could not be told
                    runs = {attempt_id[:_RUN_ID_LENGTH] for attempt_id in await changed()}
                await self._store.wake(runs)
                runs = set()
                self.doorbell.set()
            except Exception as error:
                logger.warning("cannot ring for %d runs (%s); trying again", len(runs), error)
                await asyncio.sleep(self._config.look_seconds)

    async def handle(self, lease: Lease) -> None:
        """One leased run: decisions until it is quiet, then give it back."""
        renewal = asyncio.create_task(self._keep(lease))
        try:
            with STEPS.time():
                wake_at = await self.step(lease)
            self._failures.pop(lease.run_id, None)
        except StaleLease:
            logger.warning("run %s was taken over; dropping it", lease.run_id)
            return
        except Exception:
            FAILURES.inc()
            failures = self._failures[lease.run_id] = self._failures.get(lease.run_id, 0) + 1
            delay = min(
                self._config.most_delay_seconds, self._config.first_delay_seconds * 2.0 ** min(failures - 1, 20)
            )
            logger.exception("run %s: step failed %d times in a row; again in %.0f s", lease.run_id, failures, delay)
            wake_at = self._now() + delay
        finally:
            renewal.cancel()
        with contextlib.suppress(Exception):  # an unreleased lease expires by itself
            await self._store.release(lease, wake_at=wake_at)

    async def step(self, lease: Lease) -> float | None:
        """Load, observe, decide, act, again until there is nothing to do. Returns when to look again. Raises StaleLease."""
        run = await self._store.load(lease.run_id)
        for _ in range(_STEPS_AT_ONCE):
            watched = [a.id for s in run.stages for a in s.attempts if not a.workload_removed]
            observed = await self._executor.observe(watched) if watched else {}
            seen = {key: dataclasses.replace(one, heard_since=self._heard_since()) for key, one in observed.items()}
            decision = decide(run, seen, self._now())
            if decision.is_quiet:
                return decision.wake_at
            for effect in decision.before:
                await self._act(lease, run, effect)
            if decision.writes:
                try:
                    run = await self._store.apply(lease, run.version, decision.writes)
                except VersionConflict:
                    run = await self._store.load(lease.run_id)
                    continue
            for effect in decision.after:
                await self._act(lease, run, effect)
            if not decision.writes and not decision.before:
                # Effects alone change what is seen, not what is remembered: give the world a moment.
                return min(
                    decision.wake_at or self._now() + self._config.look_seconds, self._now() + self._config.look_seconds
                )
            if decision.after:  # a creation picks what is resumed from, or fails
                run = await self._store.load(lease.run_id)
        return self._now()

    async def _look_for_orphans(self) -> None:
        """Beside the loop: over many workloads a look takes seconds, and runs that are due do not wait for it."""
        while True:
            try:
                await self.collect_orphans()
            except Exception as error:
                logger.warning("cannot look for workloads that nobody knows (%s); trying again", error)
            await asyncio.sleep(self._config.orphan_seconds)

    async def collect_orphans(self) -> None:
        """Workloads that no attempt in the database stands for: stopped and removed. One that resists does not keep the others."""
        for attempt_id in await self._executor.list_attempts():
            try:
                await self._collect_orphan(attempt_id)
            except Exception:
                logger.exception("workload %s: cannot be looked up or removed; again later", attempt_id)

    async def _collect_orphan(self, attempt_id: str) -> None:
        try:
            run = await self._store.load(attempt_id[:_RUN_ID_LENGTH])
            known = {a.id for s in run.stages for a in s.attempts if not a.workload_removed}
        except NotFound:
            known = set()
        # It may have been removed, and that been recorded, since the list was made.
        if attempt_id not in known and attempt_id in await self._executor.list_attempts():
            logger.warning("workload %s belongs to no attempt: removing it", attempt_id)
            await self._executor.stop(attempt_id, grace_seconds=0.0)
            await self._executor.remove(attempt_id)

    async def _act(self, lease: Lease, run: RunView, effect: Effect) -> None:
        match effect:
            case CreateWorkload():
                await self._create(lease, run, effect.attempt_id)
            case StopWorkload():
                await self._executor.stop(effect.attempt_id, grace_seconds=effect.grace_seconds)
            case DumpStacks():
                await self._executor.dump_stacks(effect.attempt_id, effect.rank)
            case CollectArtifacts():
                await self._store.collect_artifacts(lease, effect.attempt_id)
            case RemoveWorkload():
                await self._executor.remove(effect.attempt_id)

    async def _create(self, lease: Lease, run: RunView, attempt_id: str) -> None:
        """A spec that cannot be resolved, or a workload of that name with another spec, ends the attempt with a sentence."""
        stage_id = attempt_id[_RUN_ID_LENGTH + 1 :].rsplit("-", 1)[0]
        excluded = next((excluded_nodes(s) for s in run.stages if s.id == stage_id), ())
        try:
            spec: StageSpec = await self._store.spec(attempt_id)
            await self._executor.create(spec, excluded_nodes=excluded)
        except SpecConflict as error:
            await self._fail(
                lease, attempt_id, Cause.POISON, f"A workload of this name exists with another spec: {error}"
            )
        except AbruzziError as error:
            if error.status >= 500:
                await self._note(lease, attempt_id, error.message)
                raise
            await self._fail(lease, attempt_id, Cause.BAD_DATA, error.message)

    async def _note(self, lease: Lease, attempt_id: str, sentence: str) -> None:
        """Why there is no workload yet: it is tried again, and until then `why` tells people."""
        current = await self._store.load(lease.run_id)
        attempt = next((a for s in current.stages for a in s.attempts if a.id == attempt_id), None)
        if attempt is not None and attempt.state is AttemptState.CREATED and attempt.reason != sentence:
            with contextlib.suppress(VersionConflict):
                await self._store.apply(
                    lease, current.version, [SetAttempt(attempt_id, attempt.state, reason=sentence)]
                )

    async def _fail(self, lease: Lease, attempt_id: str, cause: Cause, reason: str) -> None:
        current = await self._store.load(lease.run_id)
        now = self._now()
        write = SetAttempt(attempt_id, AttemptState.FAILED, cause=cause, reason=reason, ended_at=now)
        # On a conflict the next step decides again and comes here again.
        with contextlib.suppress(VersionConflict):
            await self._store.apply(lease, current.version, [write])

    async def _keep(self, lease: Lease) -> None:
        """Renew while a long step (verifying a large checkpoint) goes on."""
        with contextlib.suppress(StaleLease):
            while True:
                await asyncio.sleep(self._config.lease_seconds / 3)
                try:
                    await self._store.renew(lease, ttl_seconds=self._config.lease_seconds)
                except StaleLease:
                    raise
                except Exception:
                    logger.exception("run %s: cannot renew its lease; trying again", lease.run_id)

    async def _wait(self, stop: asyncio.Event, held: set[asyncio.Task[None]]) -> None:
        """For a ring, the end, a free place, or the next look."""
        waiters = [asyncio.create_task(self.doorbell.wait()), asyncio.create_task(stop.wait())]
        full = len(held) >= self._config.runs_at_once
        await asyncio.wait(
            [*waiters, *(held if full else ())], timeout=self._config.look_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        for waiter in waiters:
            waiter.cancel()
        self.doorbell.clear()
