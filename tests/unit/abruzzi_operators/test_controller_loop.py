"""The controller's loop over the stores and executors of the simulation, which keep the contract of the real ones."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from simulation.memory_executor import Fate, MemoryExecutor
from simulation.memory_store import MemoryRunStore

from abruzzi.contracts.errors import AbruzziError, Conflict
from abruzzi.contracts.states import AttemptState, Cause, RunState, StageState
from abruzzi.engine.actions import Decision, SetRun
from abruzzi.engine.ports import Lease, SpecConflict
from abruzzi.engine.view import AttemptView, Desired, RunView, StageView
from abruzzi_operators.controller.controller import Controller, ControllerConfig

DEADLINE_SECONDS = 240.0
A, B = "runaaaaaaa", "runbbbbbbb"


def run_of(run_id: str) -> RunView:
    return RunView(run_id, RunState.PENDING, Desired.RUN, 1, (StageView("work", StageState.WAITING),))


class Bed:
    """A store, an executor, a clock, and hooks that a test hangs before their methods."""

    def __init__(self, *runs: str) -> None:
        self.at = 1000.0
        self.store = MemoryRunStore([run_of(run_id) for run_id in runs], now=self.now)
        self.executor = MemoryExecutor(lambda _: Fate(0, float("inf")), now=self.now, rng=random.Random(0))
        self.before: dict[str, Callable[..., Any]] = {}
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.called = asyncio.Condition()

    def now(self) -> float:
        return self.at

    def controller(self, owner: str = "one", **settings: float) -> Controller:
        config = replace(ControllerConfig(owner=owner, look_seconds=3600.0), **settings)  # type: ignore[arg-type]
        return Controller(Hooked(self, self.store), Hooked(self, self.executor), now=self.now, config=config)  # type: ignore[arg-type]

    async def lease(self, owner: str = "one") -> Lease:
        return (await self.store.lease(owner, limit=1, ttl_seconds=15.0))[0]

    async def until_called(self, name: str, about: str = "", *, times: int = 1) -> None:
        def often() -> bool:
            return sum(n == name and about in str(args) for n, args in self.calls) >= times

        async with self.called:
            await asyncio.wait_for(self.called.wait_for(often), DEADLINE_SECONDS)

    def attempts(self, run_id: str) -> tuple[AttemptView, ...]:
        return self.store.runs[run_id].stages[0].attempts


class Hooked:
    def __init__(self, bed: Bed, inner: Any) -> None:
        self._bed, self._inner = bed, inner

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **options: Any) -> Any:
            if name in self._bed.before:
                waiting = self._bed.before[name](*args)
                if waiting is not None:
                    await waiting
            result = await getattr(self._inner, name)(*args, **options)
            async with self._bed.called:
                self._bed.calls.append((name, args))
                self._bed.called.notify_all()
            return result

        return call


@asynccontextmanager
async def running(controller: Controller) -> AsyncIterator[asyncio.Task[None]]:
    stop = asyncio.Event()
    task = asyncio.create_task(controller.run(stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait_for(task, DEADLINE_SECONDS)


def refusing(about: str, error: Exception, *, times: int = 10**9) -> Callable[..., None]:
    left = iter(range(times))

    def refuse(*args: Any) -> None:
        if about in str(args) and next(left, None) is not None:
            raise error

    return refuse


async def test_a_ring_brings_a_new_run_to_its_workload_without_waiting_for_the_next_look() -> None:
    bed = Bed()
    controller = bed.controller()
    async with running(controller):
        await bed.until_called("lease")
        bed.store.add(run_of(A))
        controller.doorbell.set()
        await bed.until_called("release", A)
    assert bed.executor.started == [f"{A}-work-1"]
    assert bed.store.runs[A].state is RunState.RUNNING


async def test_a_run_whose_step_fails_is_set_aside_with_growing_delays_and_the_others_do_not_notice() -> None:
    bed = Bed(A, B)
    bed.before["load"] = refusing(A, RuntimeError("broken"), times=3)
    controller = bed.controller()
    dates = []
    async with running(controller):
        for number in range(1, 4):
            await bed.until_called("release", A, times=number)
            dates.append(bed.store.leases[A].wake_at)
            assert dates[-1] is not None
            bed.at = dates[-1]
            controller.doorbell.set()
        await bed.until_called("create", A)
    assert dates == [1001.0, 1003.0, 1007.0]
    assert bed.executor.started[0] == f"{B}-work-1"


async def test_the_delay_begins_anew_after_a_step_that_went_well_and_never_passes_its_bound() -> None:
    bed = Bed(A)
    controller = bed.controller(most_delay_seconds=3.0)

    async def wake_after_step() -> float | None:
        bed.store.ring(A)
        lease = await bed.lease()
        await controller.handle(lease)
        return bed.store.leases[A].wake_at

    bed.before["load"] = refusing(A, RuntimeError("broken"), times=4)
    assert [await wake_after_step() for _ in range(4)] == [1001.0, 1002.0, 1003.0, 1003.0]
    await wake_after_step()
    bed.before["load"] = refusing(A, RuntimeError("broken"))
    assert await wake_after_step() == 1001.0


async def test_a_lease_lost_in_the_middle_leaves_the_run_to_its_new_owner() -> None:
    bed = Bed(A)
    lease = await bed.lease("slow")

    async def taken_over() -> None:
        bed.at += 60.0
        await bed.lease("quick")

    bed.before["apply"] = lambda *_: taken_over()
    await bed.controller("slow").handle(lease)
    assert bed.attempts(A) == ()
    assert bed.executor.started == []
    assert (bed.store.leases[A].owner, bed.store.leases[A].token) == ("quick", lease.token + 1)
    assert "release" not in [name for name, _ in bed.calls]


async def test_a_change_between_looking_and_writing_is_decided_again() -> None:
    bed = Bed(A)
    changed = []

    def cancel_once(*_: Any) -> None:
        if not changed:
            changed.append(True)
            bed.store.cancel(A)

    bed.before["apply"] = cancel_once
    await bed.controller().handle(await bed.lease())
    assert bed.store.runs[A].state is RunState.CANCELLED
    assert bed.executor.started == []


async def test_while_the_database_is_away_it_looks_again_and_nothing_is_lost() -> None:
    bed = Bed(A)
    bed.before["lease"] = refusing("", ConnectionError("away"), times=3)
    async with running(bed.controller(look_seconds=0.001)):
        await bed.until_called("create", A)
    assert bed.executor.started == [f"{A}-work-1"]


async def test_a_long_step_keeps_its_lease_also_through_an_error_of_the_renewal() -> None:
    bed = Bed(A)
    bed.before["apply"] = lambda *_: bed.until_called("renew", times=2)
    bed.before["renew"] = refusing("", ConnectionError("away"), times=1)
    await bed.controller(lease_seconds=0.003).handle(await bed.lease())
    assert bed.executor.started == [f"{A}-work-1"]


async def test_what_it_holds_is_finished_before_it_ends() -> None:
    bed = Bed(A)
    began, may_end = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        began.set()
        await may_end.wait()

    bed.before["create"] = lambda *_: hold()
    async with running(bed.controller()):
        await asyncio.wait_for(began.wait(), DEADLINE_SECONDS)
        asyncio.get_running_loop().call_soon(may_end.set)
    assert bed.executor.started == [f"{A}-work-1"]
    assert bed.store.leases[A].owner is None


async def test_no_more_runs_are_held_than_allowed_and_a_free_place_is_filled_at_once() -> None:
    bed = Bed(*(f"run{number:07d}" for number in range(5)))
    held: set[str] = set()
    most: list[int] = []
    both = asyncio.Event()

    async def enter(run_id: str) -> None:
        held.add(run_id)
        most.append(len(held))
        if len(held) == 2:
            both.set()
        await both.wait()

    bed.before["load"] = enter
    bed.before["release"] = lambda lease: held.discard(lease.run_id)
    controller = bed.controller(runs_at_once=2)
    async with running(controller):
        await bed.until_called("release", times=5)
    assert max(most) == 2
    assert len(bed.executor.started) == 5


@pytest.mark.parametrize(
    ("method", "error", "cause"),
    [
        ("create", SpecConflict("another"), Cause.POISON),
        ("spec", Conflict("Input 'data' of stage 'work' is missing."), Cause.BAD_DATA),
    ],
)
async def test_an_attempt_that_cannot_be_made_ends_with_a_sentence(method: str, error: Exception, cause: Cause) -> None:
    bed = Bed(A)
    bed.before[method] = refusing("", error)
    await bed.controller().handle(await bed.lease())
    [attempt] = bed.attempts(A)
    assert (attempt.state, attempt.cause) == (AttemptState.FAILED, cause)
    assert str(error) in (attempt.reason or "")
    assert bed.store.runs[A].state is RunState.FAILED


async def test_an_executor_that_is_ill_costs_no_attempt() -> None:
    bed = Bed(A)
    bed.before["create"] = refusing("", AbruzziError("away", "Not now.", status=503), times=1)
    controller = bed.controller()
    await controller.handle(await bed.lease())
    assert [a.state for a in bed.attempts(A)] == [AttemptState.CREATED]
    bed.at += 60.0
    await controller.handle(await bed.lease())
    assert [a.state for a in bed.attempts(A)] == [AttemptState.CREATED]
    assert bed.executor.started == [f"{A}-work-1"]


async def test_workloads_that_nobody_knows_are_removed_even_if_one_resists() -> None:
    bed = Bed(A)
    controller = bed.controller()
    await controller.handle(await bed.lease())
    for stranger in ("stubborn00-work-1", "stranger00-work-1"):
        await bed.executor.create((await bed.store.spec(f"{A}-work-1")).model_copy(update={"attempt_id": stranger}))
    bed.before["remove"] = refusing("stubborn", AbruzziError("attempt_lives", "It lives.", status=500))
    await controller.collect_orphans()
    assert set(bed.executor.processes) == {f"{A}-work-1", "stubborn00-work-1"}


async def test_a_workload_that_went_since_the_list_was_made_is_nobodys_orphan() -> None:
    bed = Bed(A)
    controller = bed.controller()
    await controller.handle(await bed.lease())
    stranger = "stranger00-work-1"
    await bed.executor.create((await bed.store.spec(f"{A}-work-1")).model_copy(update={"attempt_id": stranger}))
    bed.before["load"] = lambda run_id: bed.executor.remove(stranger) if run_id in stranger else None
    await controller.collect_orphans()
    assert "remove" not in [name for name, _ in bed.calls]


async def test_a_look_for_orphans_that_takes_long_holds_up_no_run() -> None:
    bed = Bed(A)
    bed.before["list_attempts"] = lambda *_: asyncio.Event().wait()
    async with running(bed.controller()):
        await bed.until_called("release", A)
    assert bed.executor.started == [f"{A}-work-1"]


async def test_a_create_that_comes_after_its_attempt_was_given_up_starts_nothing() -> None:
    """A controller commits the intent and freezes; the platform goes down and up again; then it thaws."""
    bed = Bed(A)
    frozen, thaw = asyncio.Event(), asyncio.Event()

    async def freeze() -> None:
        bed.before.pop("create")
        frozen.set()
        await thaw.wait()

    bed.before["create"] = lambda *_: freeze()
    slow = asyncio.create_task(bed.controller("slow").handle(await bed.lease("slow")))
    await asyncio.wait_for(frozen.wait(), DEADLINE_SECONDS)
    for request in (bed.store.interrupt_all, bed.store.resume_interrupted):
        request()
        bed.at += 60.0
        await bed.controller("quick").handle(await bed.lease("quick"))
    thaw.set()
    await asyncio.wait_for(slow, DEADLINE_SECONDS)
    assert [a.state for a in bed.attempts(A)][:-1] == [AttemptState.INTERRUPTED]
    assert bed.executor.started == [f"{A}-work-2"]


async def test_a_run_that_is_never_quiet_is_given_back_so_that_no_other_starves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bed = Bed(A)
    lease = await bed.lease()

    restless = Decision(writes=(SetRun(RunState.RUNNING),))
    monkeypatch.setattr("abruzzi_operators.controller.controller.decide", lambda *_: restless)
    await bed.controller().handle(lease)
    assert bed.store.leases[A].owner is None
    assert bed.store.leases[A].wake_at == bed.now()


async def test_news_of_an_attempt_wakes_its_run_also_when_the_database_could_not_be_told_at_first() -> None:
    bed = Bed(A)
    news: asyncio.Queue[set[str]] = asyncio.Queue()
    controller = bed.controller(look_seconds=0.01)
    controller._changed = news.get
    bed.before["wake"] = refusing(A, ConnectionError("away"), times=2)
    async with running(controller):
        await bed.until_called("release", A)
        looks = sum(name == "lease" for name, _ in bed.calls)
        await news.put({f"{A}-work-1"})
        await bed.until_called("release", A, times=2)
    assert looks
    assert [args for name, args in bed.calls if name == "wake"] == [({A},)]
