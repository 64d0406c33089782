"""Trajectories of a simulated engine under a rollout scheduler, from a seed: they end, fail, hang, are paused, answer late, twice or never, and the
process dies. Every command is checked against the rules when it is given."""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from abruzzi.contracts.rollout import Status
from abruzzi_jobs.rl.rollout.concurrency import ConcurrencyPolicy
from abruzzi_jobs.rl.rollout.events import (
    Begin,
    Cause,
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
    Stood,
    Stop,
    Tick,
    Used,
)
from abruzzi_jobs.rl.rollout.scheduler import Scheduler, SchedulerPolicy

MOST_EVENTS = 20_000
"""Of one iteration."""


class Violation(AssertionError):
    """A rule was broken."""


@dataclass
class RolloutWorld:
    seed: int
    faults: float = 0.05
    """Chance of each kind of fault at each occasion."""
    now: float = 0.0
    trace: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = rng = random.Random(self.seed)
        start = rng.randint(1, 24)
        self.policy = SchedulerPolicy(
            groups=rng.randint(1, 6),
            members=(members := rng.randint(1, 4)),
            ahead=rng.choice((0.0, 0.25, 0.5, 1.0)),
            max_span=rng.randint(1, 6),
            min_counted=rng.randint(0, members),
            lease_s=rng.choice((5.0, 1e6)),
            deadline_s=400.0,
            pause_grace_s=20.0,
            engine_retries=rng.randint(0, 2),
            concurrency=ConcurrencyPolicy(start=start, most=start + rng.randint(0, 16)),
        )
        self.cap_s = rng.choice((None, 3.0, 10.0))
        """Seconds of an iteration that a trajectory may use."""
        self.scheduler = Scheduler(self.policy)
        self.version = -1
        self.left: dict[str, float] = {}
        """Seconds that a trajectory still needs."""
        self.asked_length: dict[str, float] = {}
        self.versions: dict[str, set[int]] = defaultdict(set)
        self.running: dict[str, tuple[int, float, float]] = {}
        """Dispatch, began, seconds it may use."""
        self.standing: set[str] = set()
        self.capped: set[str] = set()
        self.sessions: set[str] = set()
        self.ends: Counter[str] = Counter()
        self.status: dict[str, Status] = {}
        self.fate: dict[str, str] = {}
        self.trained: list[str] = []
        self.due: list[tuple[float, int, Event]] = []
        self.order = 0
        self.kinds: Counter[str] = Counter()
        self.source_left = 10_000
        self.drawn = 0
        self.is_halted = False

    # Iterations

    def iterate(self) -> tuple[str, ...]:
        """One, to its end. The groups that it gives out."""
        self.version += 1
        self.capped.clear()
        complete = self.tell(Begin(self.version))
        halt_at = self.rng.randint(0, 100)
        for number in range(MOST_EVENTS):
            if self.is_halted:
                self.is_halted = False
                self.check(not self.running, f"halted while {list(self.running)[:3]} run")
                self.restart()
                complete = self.tell(Begin(self.version))
            if complete is not None:
                self.check(not self.running, f"complete while {list(self.running)[:3]} run")
                return complete
            complete = self.tell(Halt() if number == halt_at else self.next_event())
        raise Violation(f"seed {self.seed}: iteration {self.version} does not end\n" + "\n".join(self.trace[-40:]))

    def stop(self) -> None:
        self.tell(Stop())
        left = [member for member in self.versions if self.ends[member] != 1]
        self.check(not left, f"{left[:3]} never ended")
        self.check(not self.running, "something runs after the stop")

    def restart(self) -> None:
        """The process dies between two iterations, and another goes on from what it had kept."""
        self.kinds["restart"] += 1
        known: tuple[KnownGroup, ...] = self.scheduler.known()
        self.running.clear()
        self.sessions.clear()
        self.capped.clear()
        self.due.clear()
        self.scheduler = Scheduler(self.policy)
        self.scheduler.restore(known)

    # Events

    def next_event(self) -> Event:
        if self.rng.random() < self.faults:
            return Used(self.rng.random())
        at = self.due[0][0] if self.due else math.inf
        timer = self.scheduler.next_time()
        if at == math.inf and timer is None:
            return Tick()
        if timer is not None and timer < at:
            self.now = max(self.now, timer)
            return Tick()
        self.now = max(self.now, at)
        event = heapq.heappop(self.due)[2]
        self.reported(event)
        return event

    def reported(self, event: Event) -> None:
        """Whatever is told of the present dispatch, it runs no more."""
        if isinstance(event, Offered):
            self.fate |= dict.fromkeys(event.groups, "under way")
        if not isinstance(event, Ended | Stood) or self.running.get(event.member, (None,))[0] != event.dispatch:
            return
        _, began, _ = self.running.pop(event.member)
        self.left[event.member] = max(0.0, self.left[event.member] - (self.now - began))
        if isinstance(event, Stood) or event.status is Status.ENGINE_ERROR:
            self.standing.add(event.member)
        if isinstance(event, Stood) and event.cause is Cause.CAP:
            self.capped.add(event.member)

    def later(self, seconds: float, event: Event) -> None:
        self.order += 1
        heapq.heappush(self.due, (self.now + seconds, self.order, event))

    # Commands

    def tell(self, event: Event) -> tuple[str, ...] | None:
        """The groups of a Complete."""
        self.trace.append(f"{self.now:9.2f} {event}")
        complete = None
        for command in self.scheduler.decide(event, self.now):
            self.trace.append(f"{'':9} -> {command}")
            self.kinds[type(command).__name__] += 1
            match command:
                case Draw():
                    self._draw(command.count)
                case Play():
                    self._play(command)
                case Pause():
                    for member, (dispatch, *_) in list(self.running.items()):
                        self._asked(member, dispatch)
                case Preempt():
                    self._asked(command.member, command.dispatch)
                case Release():
                    self.check(command.member in self.standing, f"{command.member} is released and does not stand")
                    self.sessions.discard(command.member)
                case End():
                    self._end(command)
                case Drop():
                    self._close(command.group, "dropped")
                case Halted():
                    self.is_halted = True
                case Complete():
                    complete = command.groups
                    self._complete(complete)
        return complete

    def _draw(self, count: int) -> None:
        count = min(count, self.source_left)
        self.source_left -= count
        names = tuple(f"g{self.drawn + number}" for number in range(count))
        self.drawn += count
        under_way = count + sum(fate == "under way" for fate in self.fate.values())
        bound = math.ceil((1 + self.policy.ahead) * self.policy.groups)
        self.check(under_way <= bound, f"{under_way} groups are under way, at most {bound} may be")
        self.later(0.0, Offered(names))

    def _play(self, command: Play) -> None:
        member, rng = command.member, self.rng
        self.check(len(self.running) < self.scheduler.concurrency.limit, "more run than may")
        self.check(self.ends[member] == 0, f"{member} is played after its end")
        self.check(member not in self.running, f"{member} is played twice at a time")
        self.check(command.is_resumed == (member in self.versions), f"{member} begins again")
        if not command.is_resumed:
            first = self.standing - self.capped
            self.check(not first, f"{member} begins while {sorted(first)[:3]} stand")
            self.left[member] = self.asked_length[member] = rng.lognormvariate(1.0, 1.0)
        self.standing.discard(member)
        self.versions[member].add(self.version)
        self.sessions.add(member)
        may_use = math.inf if self.cap_s is None else self.cap_s
        self.running[member] = (command.dispatch, self.now, may_use)
        self._fate(member, command.dispatch, may_use)

    def _fate(self, member: str, dispatch: int, may_use: float) -> None:
        rng, left = self.rng, self.left[member]
        if rng.random() < self.faults:
            return  # it hangs, or its end is never told
        told: Event = Stood(member, dispatch, Cause.CAP)
        if left <= may_use:
            failed = rng.choice((Status.ENGINE_ERROR, Status.ENVIRONMENT_ERROR, Status.ENVIRONMENT_TIMEOUT))
            told = Ended(member, dispatch, failed if rng.random() < self.faults else Status.OK)
        self.later(min(left, may_use), told)
        if rng.random() < self.faults:
            self.later(min(left, may_use) + rng.choice((0.0, 50.0)), told)

    def _asked(self, member: str, dispatch: int) -> None:
        """It stands soon, or it does not hear."""
        if self.rng.random() >= self.faults:
            self.later(self.rng.random(), Stood(member, dispatch))

    def _end(self, command: End) -> None:
        member = command.member
        self.ends[member] += 1
        self.status[member] = command.status
        self.check(self.ends[member] == 1, f"{member} ends twice")
        self.check(member in self.versions, f"{member} ends and was never played")
        self.check(member not in self.running or command.is_by_scheduler, f"{member} ends and runs on")
        self.running.pop(member, None)
        self.standing.discard(member)
        self.sessions.discard(member)

    def _close(self, group: str, fate: str) -> None:
        self.check(self.fate[group] == "under way", f"{group} is {self.fate[group]}, then {fate}")
        self.fate[group] = fate
        open_members = [m for m in self.versions if m.rsplit("/", 1)[0] == group and self.ends[m] != 1]
        self.check(not open_members, f"{group} is {fate} with {open_members[:3]} not ended")

    def _complete(self, groups: tuple[str, ...]) -> None:
        expected = self.policy.groups if self.source_left else 0
        self.check(len(groups) >= expected and len(groups) <= self.policy.groups, f"{len(groups)} groups")
        for group in groups:
            members = [f"{group}/{index}" for index in range(self.policy.members)]
            self.check(all(self.ends[m] == 1 for m in members), f"{group} is not whole")
            counted = sum(self.status[m].counted for m in members)
            self.check(counted >= self.policy.min_counted, f"{group} has {counted} members with a reward")
            versions = set().union(*(self.versions[m] for m in members))
            span = max(versions) - min(versions) + 1
            self.check(span <= self.policy.max_span, f"{group} has tokens of {span} versions")
            self._close(group, "complete")
            self.trained += members
        self.check(list(groups) == sorted(groups, key=lambda name: int(name[1:])), "not the oldest first")

    def check(self, holds: bool, message: str) -> None:
        if not holds:
            raise Violation(f"seed {self.seed} at {self.now:.2f}: {message}\n" + "\n".join(self.trace[-40:]))
