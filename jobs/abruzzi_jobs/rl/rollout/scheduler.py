"""Which trajectories run, stand and end: a pure state machine. `decide(event, now)` does no I/O and draws nothing, so a simulation can explore it from a seed.

An iteration needs B groups of K members. Up to (1 + η)·B groups are under way, those of earlier iterations included, which is AReaL's bound
min(concurrency − running, (η + v + 1)·B − (accepted + running)) with the v·B groups accepted before taken off both sides (reference/rl.md 1.2). As soon as
B groups are whole, all that runs is paused and kept, and goes on first in the next iteration (partial rollout, paper 3.3.4). What is whole is handed out
oldest first, and nothing is dropped for being long but by `max_span`: the lengths that are trained on are those that were asked for.

What holds, whatever is reported, in any order, or never (reference/rl.md 8, invariant 6): each trajectory that was ever played gets exactly one `End`; a
group is either completed, once, with its own K members, or dropped, once; every iteration comes to its `Complete` as long as there is a next tick.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from abruzzi.contracts.rollout import Status
from abruzzi_jobs.rl.rollout.concurrency import Concurrency, ConcurrencyPolicy
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerPolicy:
    groups: int
    """B, of an iteration."""
    members: int
    """K, of a group."""
    ahead: float = 0.5
    """η: groups under way beyond those that the iteration needs, as a fraction of them. 0 is a synchronous barrier."""
    max_span: int = 8
    """Policy versions that a group may have tokens of; one that would have more is dropped as stale."""
    staleness: int = 0
    """Versions that an iteration's weights may be ahead of those that play it (bounded asynchrony; 0: rollouts and training take turns)."""
    min_counted: int = 2
    """Members with a reward that a group needs: less has no mean to compare with."""
    lease_s: float = 900.0
    """How long the environment's session of a paused trajectory is kept open."""
    deadline_s: float = 3600.0
    """Of one dispatch. The engine's and the environment's own time limits are shorter; this one ends what they do not."""
    pause_grace_s: float = 60.0
    engine_retries: int = 2
    """Of a trajectory, from the tokens that it has: draws are by position, so trying again does not choose among samples."""
    concurrency: ConcurrencyPolicy = field(default_factory=ConcurrencyPolicy)

    def __post_init__(self) -> None:
        if self.groups < 1 or self.members < 1 or self.ahead < 0 or self.max_span < 1:
            raise ValueError("groups, members and max_span are at least 1, ahead is not negative")
        if not 0 <= self.staleness < self.max_span:
            raise ValueError(f"staleness is {self.staleness}; give 0 to max_span - 1, which is {self.max_span - 1}")
        if not 0 <= self.min_counted <= self.members:
            raise ValueError(f"min_counted is {self.min_counted}; give at most the {self.members} members of a group")


class _State(StrEnum):
    WAITING = "waiting"
    """Never played."""
    RUNNING = "running"
    STANDING = "standing"
    ENDED = "ended"


@dataclass(slots=True, eq=False)
class _Member:
    group: _Group
    index: int
    state: _State = _State.WAITING
    dispatch: int = 0
    failures: int = 0
    status: Status | None = None
    until: float | None = None
    """Of a running one its deadline, of a standing one its lease."""
    is_asked: bool = False
    """To pause."""

    @property
    def id(self) -> str:
        return f"{self.group.id}/{self.index}"

    @property
    def place(self) -> tuple[int, int]:
        return self.group.order, self.index


@dataclass(slots=True, eq=False)
class _Group:
    id: str
    order: int
    born: int | None = None
    members: list[_Member] = field(default_factory=list)

    def count(self, wanted: Callable[[_Member], bool]) -> int:
        return sum(map(wanted, self.members))


class _Phase(StrEnum):
    IDLE = "idle"
    ROLLING = "rolling"
    PAUSING = "pausing"
    STOPPED = "stopped"


class Scheduler:
    def __init__(self, policy: SchedulerPolicy) -> None:
        self.policy = policy
        self.concurrency = Concurrency(policy.concurrency)
        self.counts: Counter[str] = Counter()
        """For metrics: played, resumed, late, preempted, released, dropped, rounds, and `ended/<status>`."""
        self._phase = _Phase.IDLE
        self._iteration = self._version = 0
        """The second is what the engine serves: at most `staleness` before the first."""
        self._groups: dict[str, _Group] = {}
        """Under way, or whole and not yet handed out; in the order of their beginning."""
        self._members: dict[str, _Member] = {}
        self._seen: set[str] = set()
        self._running: dict[str, _Member] = {}
        self._standing: list[tuple[tuple[int, int], str]] = []
        """A heap; those that may go on now."""
        self._capped: list[_Member] = []
        self._waiting: deque[_Member] = deque()
        self._ready: list[_Group] = []
        self._timers: list[tuple[float, str, int]] = []
        self._asked_for = 0
        self._is_exhausted = self._is_halted = False
        self._dispatches = 0
        self._orders = 0
        self._out: list[Command] = []

    # What is known from outside

    @property
    def is_idle(self) -> bool:
        """Between two iterations."""
        return self._phase in (_Phase.IDLE, _Phase.STOPPED)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def under_way(self) -> int:
        """Groups."""
        return len(self._groups)

    def next_time(self) -> float | None:
        """When the next deadline or lease is over, at the earliest."""
        return self._timers[0][0] if self._timers else None

    def known(self) -> tuple[KnownGroup, ...]:
        """What another process needs to go on from here; between two iterations."""
        return tuple(
            KnownGroup(
                id=group.id,
                born=group.born,
                members={m.index: m.status for m in group.members if m.state is not _State.WAITING},
            )
            for group in self._groups.values()
        )

    def restore(self, known: tuple[KnownGroup, ...]) -> None:
        """Before the first iteration: groups that an earlier process began. Their standing members have no session of an environment any more."""
        if self._seen:
            raise ValueError("restore: groups are already known; restore comes first, once")
        for one in known:
            group = self._add(one.id)
            group.born = one.born
            for member in group.members:
                if member.index not in one.members:
                    self._waiting.append(member)
                    continue
                member.status = one.members[member.index]
                if member.status is None:
                    member.state = _State.STANDING
                    heapq.heappush(self._standing, (member.place, member.id))
                else:
                    member.state = _State.ENDED
        for group in list(self._groups.values()):
            self._judge(group)

    # Events

    def decide(self, event: Event, now: float) -> list[Command]:
        """Raises ValueError for an event that cannot be now; reports of dispatches that are over are no such, they are not heard."""
        match event:
            case Begin():
                self._begin(event.version, event.version if event.served is None else event.served)
            case Renewed():
                self._renewed(event.version)
            case Offered():
                self._offered(event.groups)
            case Stood():
                self._stood(event, now)
            case Ended():
                self._ended(event, now)
            case Used():
                self._used(event.cache, now)
            case Tick():
                self._tick(now)
            case Halt():
                self._halt(now)
            case Stop():
                self._stop()
        self._advance(now)
        out, self._out = self._out, []
        return out

    def _begin(self, iteration: int, version: int) -> None:
        if self._phase is not _Phase.IDLE or iteration < self._iteration:
            raise ValueError(f"iteration {iteration} cannot begin while {self._phase} at {self._iteration}")
        if not 0 <= iteration - version <= self.policy.staleness:
            raise ValueError(
                f"iteration {iteration} cannot be played by version {version}: at most {self.policy.staleness} versions may lie between"
            )
        self._phase, self._iteration, self._is_exhausted = _Phase.ROLLING, iteration, False
        self._version = version
        for group in list(self._groups.values()):
            if group in self._ready or group.born is None:
                continue
            if version - group.born + 1 > self.policy.max_span:
                span = f"{group.born} to {version}"
                self._drop(group, f"stale: versions {span} are more than {self.policy.max_span}", Status.STALE)
        self._uncap()

    def _renewed(self, version: int) -> None:
        if version < self._version:
            raise ValueError(f"version {version} after {self._version}; versions only grow")
        self._version = min(version, self._iteration)

    def _offered(self, groups: tuple[str, ...]) -> None:
        if len(groups) > self._asked_for:
            raise ValueError(f"{len(groups)} groups are offered, {self._asked_for} were asked for")
        self._is_exhausted = len(groups) < self._asked_for
        self._asked_for = 0
        for name in groups:
            self._waiting.extend(self._add(name).members)

    def _add(self, name: str) -> _Group:
        if name in self._seen:
            raise ValueError(f"group {name} is known already; ids are used once")
        self._seen.add(name)
        group = _Group(name, self._orders)
        self._orders += 1
        group.members = [_Member(group, index) for index in range(self.policy.members)]
        self._groups[name] = group
        self._members |= {member.id: member for member in group.members}
        return group

    def _reported(self, name: str, dispatch: int) -> _Member | None:
        """The running member that is meant; None where that dispatch is over."""
        member = self._running.get(name)
        if member is None or member.dispatch != dispatch:
            self.counts["late"] += 1
            return None
        return member

    def _stood(self, event: Stood, now: float) -> None:
        member = self._reported(event.member, event.dispatch)
        if member is not None:
            self._stand(member, now, is_capped=event.cause is Cause.CAP)

    def _stand(self, member: _Member, now: float, *, is_capped: bool = False) -> None:
        del self._running[member.id]
        member.state = _State.STANDING
        self._time(member, now + self.policy.lease_s)
        if is_capped:
            self._capped.append(member)
        else:
            heapq.heappush(self._standing, (member.place, member.id))

    def _ended(self, event: Ended, now: float) -> None:
        if event.status is Status.PARTIAL:
            raise ValueError(f"{event.member}: partial is no end; report that it stands")
        member = self._reported(event.member, event.dispatch)
        if member is None:
            return
        if event.status is Status.ENGINE_ERROR and member.failures < self.policy.engine_retries:
            member.failures += 1
            self.counts["retried"] += 1
            self._stand(member, now)
            return
        self._end(member, event.status)
        self._judge(member.group)

    def _used(self, cache: float, now: float) -> None:
        if self._phase is not _Phase.ROLLING:
            return
        waiting = len(self._standing) + len(self._waiting)
        excess = self.concurrency.used(cache, running=self.running, waiting=waiting, now=now)
        youngest = sorted(self._running.values(), key=lambda m: m.place, reverse=True)
        for member in [m for m in youngest if not m.is_asked][:excess]:
            member.is_asked = True
            self.counts["preempted"] += 1
            self._out.append(Preempt(member.id, member.dispatch))

    def _tick(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            until, name, dispatch = heapq.heappop(self._timers)
            member = self._members.get(name)
            if member is None or member.dispatch != dispatch or member.until != until:
                continue
            if member.state is _State.RUNNING:
                self._end(member, Status.ENGINE_ERROR, is_by_scheduler=True)
                self._judge(member.group)
            elif member.state is _State.STANDING:
                member.until = None
                self.counts["released"] += 1
                self._out.append(Release(name))

    def _halt(self, now: float) -> None:
        if self.is_idle:
            raise ValueError("halt: no iteration is under way")
        self._is_halted = True
        if self._phase is _Phase.ROLLING:
            self._pause(now)

    def _stop(self) -> None:
        self._phase = _Phase.STOPPED
        for group in list(self._groups.values()):
            self._drop(group, "no more iterations", Status.CANCELLED)

    # Ends

    def _end(self, member: _Member, status: Status, *, is_by_scheduler: bool = False) -> None:
        """The only place where a trajectory ends."""
        self._running.pop(member.id, None)
        member.state, member.status, member.until = _State.ENDED, status, None
        self.counts[f"ended/{status.value}"] += 1
        self._out.append(End(member.id, status, is_by_scheduler))

    def _judge(self, group: _Group) -> None:
        """Whole, lost, or still under way."""
        if group.id not in self._groups:
            return
        left = group.count(lambda m: m.state is not _State.ENDED)
        counted = group.count(lambda m: m.status is not None and m.status.counted)
        if counted + left < self.policy.min_counted:
            self._drop(group, f"lost: at most {counted + left} members have a reward", Status.CANCELLED)
        elif not left:
            self._ready.append(group)

    def _drop(self, group: _Group, reason: str, status: Status) -> None:
        for member in group.members:
            if member.state in (_State.RUNNING, _State.STANDING):
                self._end(member, status, is_by_scheduler=True)
            member.state = _State.ENDED
        self._forget(group)
        self.counts["dropped"] += 1
        self._out.append(Drop(group.id, reason))

    def _forget(self, group: _Group) -> None:
        del self._groups[group.id]
        if group in self._ready:
            self._ready.remove(group)
        for member in group.members:
            del self._members[member.id]

    # What follows

    def _advance(self, now: float) -> None:
        if self._phase is _Phase.ROLLING:
            if len(self._ready) < self.policy.groups:
                self._fill(now)
            if len(self._ready) >= self.policy.groups or self._is_over():
                self._pause(now)
        if self._phase is _Phase.PAUSING and not self._running:
            self._phase = _Phase.IDLE
            if self._is_halted:
                self._is_halted = False
                self._out.append(Halted())
                return
            whole = sorted(self._ready, key=lambda group: group.order)[: self.policy.groups]
            for group in whole:
                self._forget(group)
            self._out.append(Complete(tuple(group.id for group in whole)))

    def _is_over(self) -> bool:
        """The source has no more, and nothing is under way."""
        return self._is_exhausted and len(self._groups) == len(self._ready)

    def _pause(self, now: float) -> None:
        self._phase = _Phase.PAUSING
        if self._running:
            self._out.append(Pause())
        for member in self._running.values():
            member.is_asked = True
            self._time(member, min(member.until or math.inf, now + self.policy.pause_grace_s))

    def _fill(self, now: float) -> None:
        """Paused ones first, then members of begun groups, then new groups."""
        while True:
            for member in self._startable():
                self._play(member, now)
            if self._running or self._asked_for or not self._capped or self._may_draw():
                break
            # All have used up their tokens of this iteration and it is still short of groups: another round of them.
            self.counts["rounds"] += 1
            self._uncap()
        if wanted := self._may_draw():
            self._asked_for = wanted
            self._out.append(Draw(wanted))

    def _startable(self) -> Iterator[_Member]:
        while len(self._running) < self.concurrency.limit:
            member = None
            if self._standing:
                member = self._members.get(heapq.heappop(self._standing)[1])
            elif self._waiting:
                member = self._waiting.popleft()
            else:
                return
            if member is not None and member.state in (_State.STANDING, _State.WAITING):
                yield member

    def _may_draw(self) -> int:
        """Groups to ask for: what fits under both bounds."""
        if self._asked_for or self._is_exhausted:
            return 0
        under_way = math.ceil((1 + self.policy.ahead) * self.policy.groups)
        free = self.concurrency.limit - self.running - len(self._standing) - len(self._waiting)
        return max(0, min(math.ceil(free / self.policy.members), under_way - len(self._groups)))

    def _play(self, member: _Member, now: float) -> None:
        is_resumed = member.state is _State.STANDING
        self._dispatches += 1
        member.state, member.dispatch, member.is_asked = _State.RUNNING, self._dispatches, False
        if member.group.born is None:
            member.group.born = self._version
        self._running[member.id] = member
        self._time(member, now + self.policy.deadline_s)
        self.counts["resumed" if is_resumed else "played"] += 1
        self._out.append(Play(member.id, member.dispatch, is_resumed))

    def _uncap(self) -> None:
        for member in self._capped:
            if member.state is _State.STANDING:
                heapq.heappush(self._standing, (member.place, member.id))
        self._capped.clear()

    def _time(self, member: _Member, until: float) -> None:
        member.until = until
        heapq.heappush(self._timers, (until, member.id, member.dispatch))
