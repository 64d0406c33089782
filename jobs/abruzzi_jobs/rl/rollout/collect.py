"""An iteration's rollouts: what the scheduler decides is done here, with players, an engine and a store.

One event loop, one reader of events: players report, the scheduler decides, its commands are carried out. Whoever was ended by the scheduler is not waited
for. When `collect` returns, the engine is paused and empty, and what was cut short is kept: in memory with the environment's session, in the store without.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rollout import Outcome, Segment, Status, Task, Trajectory
from abruzzi_jobs.rl.engine.front import EngineFailed
from abruzzi_jobs.rl.engine.protocol import EngineStats, Request
from abruzzi_jobs.rl.environments.environment import Environment
from abruzzi_jobs.rl.rollout.accounting import Attribution, metrics
from abruzzi_jobs.rl.rollout.dialogue import Dialogue
from abruzzi_jobs.rl.rollout.events import (
    Begin,
    Cause,
    Command,
    Complete,
    Draw,
    Drop,
    End,
    Ended,
    Event,
    Halt,
    Halted,
    KnownGroup,
    Offered,
    Pause,
    Play,
    Preempt,
    Release,
    Renewed,
    Stood,
    Stop,
    Tick,
    Used,
)
from abruzzi_jobs.rl.rollout.played import Played, PlayedGroup
from abruzzi_jobs.rl.rollout.player import Limits, Player, Terms, member_seed
from abruzzi_jobs.rl.rollout.scheduler import Scheduler, SchedulerPolicy
from abruzzi_jobs.rl.rollout.store import HeldGroup, Kept, RolloutStore

LOST_AT_MOST = 4
"""Times as many groups as an iteration needs may be lost to errors in it: beyond that it is not the tasks."""
LOOK_SECONDS = 0.5
"""How often the engine's cache is looked at."""

FAULTS = (Status.ENGINE_ERROR, Status.ENVIRONMENT_ERROR, Status.ENVIRONMENT_TIMEOUT)

logger = logging.getLogger(__name__)
R = TypeVar("R")


class RolloutEngine(Protocol):
    """What rollouts want of the engine's asynchronous front."""

    async def generate(self, request: Request) -> Segment:
        """Cancelled, it cancels the request."""
        ...

    async def cancel(self, request_id: str) -> Any:
        """Whoever waits for it gets what there is, as `aborted`."""
        ...

    async def pause(self, mode: Literal["keep", "abort"]) -> Any: ...

    async def resume(self) -> Any: ...

    def stats(self) -> EngineStats: ...


class Interrupted(Exception):
    """Everything stands, and is stored."""


@dataclass(frozen=True, slots=True)
class Collected:
    groups: tuple[PlayedGroup, ...]
    """Whole, oldest first, not scored."""
    dropped: tuple[Played, ...]
    """Ended in this iteration, or of a group that was dropped in it, and never trained on."""
    metrics: dict[str, float]
    seconds: dict[str, float]
    """Of the call's wall time, to which they sum: `engine` (a request in it), `environment` (none, and one of these at work), `other`."""


@dataclass(slots=True)
class _UnderWay:
    number: int
    task: Task
    born: int | None = None
    members: dict[int, Played] = field(default_factory=dict)
    """As they last stood or ended."""


class Rollouts:
    """Of one stage. `task_of` is a pure function of the group's number; None: there are no more. `limits` and `terms` by task family, `terms` by version,
    too: temperature, and tokens of one iteration. `make` opens a session of a task's environment. `on_end` hears of each end at once."""

    def __init__(
        self,
        policy: SchedulerPolicy,
        *,
        engine: RolloutEngine,
        dialogue: Dialogue,
        make: Callable[[Task], Environment],
        task_of: Callable[[int], Task | None],
        limits: Callable[[str], Limits],
        terms: Callable[[str, int], Terms],
        seed: int,
        store: RolloutStore | None = None,
        on_end: Callable[[Played], None] = lambda played: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.policy = policy
        self._engine, self._dialogue, self._make = engine, dialogue, make
        self._task_of, self._limits, self._terms, self._seed = task_of, limits, terms, seed
        self._store, self._on_end, self._clock = store, on_end, clock
        self._scheduler = Scheduler(policy)
        self._groups: dict[str, _UnderWay] = {}
        self._restored: frozenset[str] = frozenset()
        """Groups of an earlier process."""
        self._players: dict[str, Player] = {}
        self._playing: dict[str, asyncio.Task[None]] = {}
        self._cap_from: dict[str, int] = {}
        """Tokens that a trajectory had when this iteration's began to count."""
        self._writes: set[asyncio.Task[Any]] = set()
        """Ends on their way to the store."""
        self._closing: set[asyncio.Task[Any]] = set()
        """Sessions, and players that were told to end; an iteration does not wait for them."""
        self._events: asyncio.Queue[Event | Exception] = asyncio.Queue()
        """And what a player raised, which is a bug."""
        self._version = self._served = self._next_number = 0
        self._looked_at, self._looked_every_s, self._has_looked = -math.inf, LOOK_SECONDS, False
        self._is_collecting = self._is_interrupted = False
        self._is_fresh = True
        self._turn = asyncio.Lock()
        """To have the engine go on, or new weights."""
        self._lost = 0
        """Groups that errors have cost in this iteration; an earlier process's are not counted again."""
        self._handed: tuple[PlayedGroup, ...] | None = None
        self._is_halted = False
        self._dropped: list[Played] = []
        self._spent = Attribution(clock)

    # From outside

    async def collect(self, version: int, *, served: int | None = None) -> Collected:
        """The groups of the iteration that begins with this version of the policy, which the engine serves (or `served`, an earlier one). Asked again for the same iteration, by whatever
        process, it hands out the same groups. Raises Interrupted, EngineFailed, and AbruzziError of the store or where errors cost one group after the other."""
        counts = self._scheduler.counts.copy()
        self._lost = 0
        self._spent.begin()
        self._version, self._handed, self._is_halted, self._dropped = version, None, False, []
        self._served = version if served is None else served
        is_fresh, self._is_fresh = self._is_fresh, False
        if self._store is not None and (is_fresh or await asyncio.to_thread(self._store.is_begun, version)):
            over = await self._restore(version)
            counts = Counter()
            if over is not None:
                return self._collected(over.handed or (), over.dropped, counts)
        self._cap_from.clear()
        self._is_collecting = True
        try:
            async with self._turn:
                await self._engine.resume()
            await self._tell(Begin(version, self._served))
            if self._is_interrupted:
                await self._tell(Halt())
            while self._handed is None and not self._is_halted:
                await self._tell(await self._next_event())
            await self._engine.pause("abort")
            await self._written()
        finally:
            self._is_collecting = False
        await self._keep()
        if self._handed is None:
            raise Interrupted
        return self._collected(self._handed, tuple(self._dropped), counts)

    def interrupt(self) -> None:
        """`collect` raises Interrupted soon, now or when it is called next; from the event loop's thread."""
        self._is_interrupted = True
        if self._is_collecting:
            self._events.put_nowait(Halt())

    async def renew(self, version: int, update: Callable[[], Awaitable[R]]) -> R:
        """New weights for the engine, also in the middle of an iteration: what runs stands between two tokens, and goes on with them."""
        async with self._turn:
            if self.policy.staleness:
                await self._engine.pause("keep")
            try:
                found = await update()
                if version > self._served:  # otherwise it was trained again, after a loss
                    self._served = version
                    if self._is_collecting:
                        self._events.put_nowait(Renewed(version))
                return found
            finally:
                # An iteration may have come to its end meanwhile; the next one resumes by itself.
                if self.policy.staleness and self._is_collecting:
                    await self._engine.resume()

    async def close(self) -> None:
        """Ends what is under way and closes all sessions."""
        await self._tell(Stop())
        await asyncio.gather(*self._closing)

    async def play_all(self, tasks: Sequence[Task], terms: Terms, *, name: str, at_once: int) -> list[Played]:
        """Each task once, to its end, in their order; for evaluations. `name`: of this lot, as of a group. Not while an iteration is collected."""
        gate = asyncio.Semaphore(at_once)

        async def one(number: int, task: Task) -> Played:
            group = f"{name}-{number:05d}"
            player = self._player(_begun(group, 0, task), number)
            async with gate:
                try:
                    return await player.play(terms)
                finally:
                    await self._released(player)

        await self._engine.resume()
        async with asyncio.TaskGroup() as lot:
            playing = [lot.create_task(one(number, task)) for number, task in enumerate(tasks)]
        await self._engine.pause("abort")
        return [task.result() for task in playing]

    # Events

    async def _next_event(self) -> Event:
        now, timer = self._clock(), self._scheduler.next_time()
        if timer is not None and timer <= now:
            return Tick()
        if now - self._looked_at >= self._looked_every_s and not self._has_looked:
            self._looked_at, self._has_looked = now, True
            stats = self._engine.stats()
            return Used(stats.cache_tokens / stats.cache_capacity if stats.cache_capacity else 0.0)
        self._has_looked = False
        try:
            async with asyncio.timeout(min(self._looked_every_s, math.inf if timer is None else timer - now)):
                event = await self._events.get()
        except TimeoutError:
            return Tick()
        if isinstance(event, Exception):
            raise event
        return event

    async def _tell(self, event: Event) -> None:
        if isinstance(event, Halt) and (self._scheduler.is_idle or self._is_halted):
            return
        if isinstance(event, Renewed) and event.version < self._served:
            return  # of an iteration that had just ended; there are newer ones since
        for command in self._scheduler.decide(event, self._clock()):
            await self._do(command)

    async def _do(self, command: Command) -> None:
        match command:
            case Draw():
                self._draw(command.count)
            case Play():
                self._play(command)
            case Pause():
                for name in self._playing:
                    self._players[name].pause()
                await self._engine.pause("abort")
            case Preempt():
                self._players[command.member].pause()
                await self._engine.cancel(command.member)
            case Release():
                self._close_beside(self._released(self._players[command.member]))
            case End():
                self._end(command)
            case Drop():
                self._drop(command)
            case Complete():
                self._handed = tuple(self._whole(name) for name in command.groups)
            case Halted():
                self._is_halted = True

    def _draw(self, count: int) -> None:
        names: list[str] = []
        while len(names) < count:
            task = self._task_of(self._next_number)
            if task is None:
                break
            names.append(group_id(self._next_number))
            self._groups[names[-1]] = _UnderWay(self._next_number, task)
            self._next_number += 1
        self._events.put_nowait(Offered(tuple(names)))

    def _play(self, command: Play) -> None:
        name = command.member
        group, index = _parts(name)
        under_way = self._groups[group]
        if under_way.born is None:
            under_way.born = min(self._served, self._version)
        player = self._players.get(name)
        if player is None:
            known = under_way.members.get(index)
            begun = known.trajectory if known is not None else _begun(group, index, under_way.task)
            player = self._players[name] = self._player(begun, under_way.number)
        terms = self._terms(under_way.task.family, self._version)
        if terms.cap_tokens is not None:
            drawn = player.drawn
            left = self._cap_from.setdefault(name, drawn) + terms.cap_tokens - drawn
            if left <= 0:
                # Another round: nothing else could run.
                self._cap_from[name], left = drawn, terms.cap_tokens
            terms = Terms(temperature=terms.temperature, cap_tokens=left)
        playing = player.play(terms)
        self._playing[name] = asyncio.create_task(self._report(name, command.dispatch, player, playing))
        self._note()

    async def _report(self, name: str, dispatch: int, player: Player, playing: Coroutine[Any, Any, Played]) -> None:
        try:
            played = await playing
        except Exception as error:
            self._events.put_nowait(error)
            return
        trajectory = played.trajectory
        group, index = _parts(name)
        if self._playing.get(name) is not asyncio.current_task():
            return  # ended by the scheduler meanwhile
        del self._playing[name]
        self._groups[group].members[index] = played
        if trajectory.status is Status.PARTIAL:
            self._events.put_nowait(Stood(name, dispatch, Cause.CAP if player.is_capped else Cause.ASKED))
        else:
            self._events.put_nowait(Ended(name, dispatch, trajectory.status))
        self._note()

    # Ends

    def _end(self, command: End) -> None:
        name = command.member
        group, index = _parts(name)
        player = self._players.pop(name, None)
        under_way = self._groups[group]
        if command.is_by_scheduler:
            if (playing := self._playing.pop(name, None)) is not None:
                playing.cancel()
                self._close_beside(asyncio.wait({playing}))
            known = player.so_far() if player is not None else under_way.members[index]
            under_way.members[index] = _as_ended(known, command.status)
        if player is not None:
            self._close_beside(self._released(player))
        played = under_way.members[index]
        if self._store is not None and self._is_collecting:
            self._writes.add(asyncio.create_task(asyncio.to_thread(self._store.ended, self._version, played)))
        self._on_end(played)
        self._note()

    def _drop(self, command: Drop) -> None:
        logger.info("group %s is dropped: %s", command.group, command.reason)
        members = self._groups.pop(command.group).members.values()
        self._dropped += members
        failed = [one.trajectory.outcome for one in members if one.trajectory.status in FAULTS]
        self._lost += bool(failed) and command.group not in self._restored
        if failed and failed[0] is not None and self._lost > LOST_AT_MOST * self.policy.groups:
            raise AbruzziError(
                "rollouts_fail",
                f"{self._lost} groups of iteration {self._version} were lost to errors, {failed[0].status.value} at last: "
                f"{failed[0].detail}",
                hint="Try the environment by itself; what has ended so far is kept.",
            )

    def _whole(self, name: str) -> PlayedGroup:
        members = self._groups.pop(name).members
        return PlayedGroup(members=tuple(members[index] for index in sorted(members)))

    async def _released(self, player: Player) -> None:
        try:
            await player.release()
        except Exception as error:
            # Its trajectory is whole all the same; what may leak is named.
            logger.warning("%s: its session did not close: %s", player.begun.id, repr(error))

    def _close_beside(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _written(self) -> None:
        """All ends are in the store; raises what went wrong."""
        writes, self._writes = self._writes, set()
        await asyncio.gather(*writes)

    # What is kept

    async def _keep(self) -> None:
        if self._store is None:
            return
        held = tuple(
            HeldGroup(id=name, number=one.number, task=one.task, born=one.born, members=one.members)
            for name, one in self._groups.items()
        )
        kept = Kept(next_number=self._next_number, held=held, handed=self._handed, dropped=tuple(self._dropped))
        write = self._store.interrupted if self._handed is None else self._store.finished
        await asyncio.to_thread(write, self._version, kept)

    async def _restore(self, version: int) -> Kept | None:
        """All from the store, as the process left it that began this iteration; its end, where it had come to it."""
        assert self._store is not None
        over = await asyncio.to_thread(self._store.iteration, version)
        kept = over or await asyncio.to_thread(self._store.before, version)
        for player in self._players.values():
            self._close_beside(self._released(player))
        self._players.clear()
        self._groups = {
            one.id: _UnderWay(one.number, one.task, one.born, dict(one.members))
            for one in (kept.held if kept is not None else ())
        }
        self._next_number = kept.next_number if kept is not None else 0
        if over is None:
            for played in (await asyncio.to_thread(self._store.ended_in, version)).values():
                trajectory = played.trajectory
                known = _UnderWay(_number(trajectory.group), trajectory.task, version)
                under_way = self._groups.setdefault(trajectory.group, known)
                under_way.members[trajectory.member] = played
            # Drawn in between, with no member that ended: long ones, which must not be passed over.
            drawn = range(self._next_number, 1 + max((one.number for one in self._groups.values()), default=-1))
            for number in drawn:
                task = None if group_id(number) in self._groups else self._task_of(number)
                if task is not None:
                    self._groups[group_id(number)] = _UnderWay(number, task)
            self._next_number = max(self._next_number, drawn.stop)
        self._groups = dict(sorted(self._groups.items(), key=lambda item: item[1].number))
        self._restored, self._events = frozenset(self._groups), asyncio.Queue()
        self._scheduler = Scheduler(self.policy)
        self._scheduler.restore(tuple(_known(name, one) for name, one in self._groups.items()))
        return over

    def _player(self, begun: Trajectory, number: int) -> Player:
        return Player(
            begun,
            seed=member_seed(self._seed, begun.task, begun=number, member=begun.member),
            limits=self._limits(begun.task.family),
            dialogue=self._dialogue,
            make=self._make,
            generate=self._generate,
            clock=self._clock,
        )

    # What is told of it

    async def _generate(self, request: Request) -> Segment:
        self._spent.requests += 1
        self._note()
        try:
            return await self._engine.generate(request)
        except EngineFailed as error:
            # No fault of the trajectory's, and no other would fare better.
            self._events.put_nowait(error)
            raise
        finally:
            self._spent.requests -= 1
            self._note()

    def _note(self) -> None:
        self._spent.note(playing=len(self._playing))

    def _collected(
        self, groups: tuple[PlayedGroup, ...], dropped: tuple[Played, ...], before: Counter[str]
    ) -> Collected:
        self._spent.note(playing=0)
        trained = [played.trajectory for group in groups for played in group.members]
        under_way = (played for one in self._groups.values() for played in one.members.values())
        found = metrics(trained, dropped, under_way, self._scheduler.counts - before)
        found["rollout/seconds"] = sum(self._spent.seconds.values())
        found["rollout/groups"] = float(len(groups))
        found["rollout/held_sessions"] = float(sum(player.is_held for player in self._players.values()))
        found["rollout/concurrency"] = float(self._scheduler.concurrency.limit)
        return Collected(groups, dropped, found, dict(self._spent.seconds))


def group_id(number: int) -> str:
    return f"g{number:07d}"


def _number(group: str) -> int:
    return int(group.removeprefix("g"))


def _parts(member: str) -> tuple[str, int]:
    group, _, index = member.rpartition("/")
    return group, int(index)


def _begun(group: str, member: int, task: Task) -> Trajectory:
    return Trajectory(id=f"{group}/{member}", group=group, member=member, task=task, segments=(), status=Status.PARTIAL)


def _as_ended(played: Played, status: Status) -> Played:
    outcome = Outcome(status=status, detail="Ended by the scheduler.")
    trajectory = played.trajectory.model_copy(update={"status": status, "outcome": outcome})
    return played.model_copy(update={"trajectory": trajectory})


def _known(name: str, one: _UnderWay) -> KnownGroup:
    statuses = {index: played.trajectory.status for index, played in one.members.items()}
    return KnownGroup(
        id=name,
        born=one.born,
        members={index: None if status is Status.PARTIAL else status for index, status in statuses.items()},
    )
