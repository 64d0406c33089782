"""Execute an action table in virtual time, and refuse one that could not be executed.

A rank has streams that run beside each other: compute, all-to-all, copies to the host and from it. Each takes its actions in the table's
order. A message is under way for its cost; no bandwidth is shared between messages.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from abruzzi.plan.pipeline.actions import Action, Op
from abruzzi.plan.pipeline.order import needed

Cost = Callable[[Action], float]
"""Seconds (or any unit) of an action. A message's is that of its SEND."""


class ScheduleError(ValueError):
    """The table cannot be executed, or leaves something undone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The same for every stage and micro-batch."""

    forward: float = 1.0
    input_gradient: float = 1.0
    weight_gradient: float = 1.0
    send: float = 0.0
    all_to_all: float = 0.0
    offload: float = 0.0
    onload: float = 0.0

    def __call__(self, action: Action) -> float:
        return {
            Op.F: self.forward, Op.I: self.input_gradient, Op.W: self.weight_gradient, Op.SEND_F: self.send, Op.SEND_I: self.send,
            Op.ALL_TO_ALL_F: self.all_to_all, Op.ALL_TO_ALL_I: self.all_to_all, Op.OFFLOAD: self.offload, Op.ONLOAD: self.onload,
        }.get(action.op, 0.0)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Span:
    action: Action
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Simulation:
    spans: list[list[Span]]
    """Of each rank, every action that takes time or is compute, in the table's order."""
    in_flight: list[int]
    """Of each rank: the most chunks whose forward has begun and whose last backward has not ended. Those on the host count."""
    resident: list[int]
    """The same without those that lie on the host: what the device holds."""

    @property
    def makespan(self) -> float:
        return max((span.end for spans in self.spans for span in spans), default=0.0)

    def busy(self, rank: int) -> float:
        """Time that the rank computes."""
        return sum(span.end - span.start for span in self.spans[rank] if span.action.op.computes)

    @property
    def bubble(self) -> float:
        """Share of the step in which ranks do not compute, on average."""
        if self.makespan == 0:
            return 0.0
        ranks = len(self.spans)
        return 1 - sum(self.busy(rank) for rank in range(ranks)) / (ranks * self.makespan)


_STREAMS = {
    Op.F: "compute", Op.I: "compute", Op.W: "compute", Op.ALL_TO_ALL_F: "network", Op.ALL_TO_ALL_I: "network",
    Op.OFFLOAD: "out", Op.ONLOAD: "in",
}  # fmt: skip
_RESULTS = {Op.ALL_TO_ALL_F: Op.F, Op.ALL_TO_ALL_I: Op.I, Op.SEND_F: Op.F, Op.SEND_I: Op.I}


def simulate(table: Sequence[Sequence[Action]], cost: Cost, *, forward_only: bool = False) -> Simulation:
    """Raises ScheduleError: an action twice or missing, on a wrong rank or before what it needs, a message never sent or never taken, or taken
    in another order than it was sent in, ranks that wait for each other."""
    run = _Run(table, cost)
    run.check_whole(forward_only)
    run.check_messages()
    run.execute()
    in_flight, resident = ([0] * run.ranks, [0] * run.ranks) if forward_only else chunks_held(run.spans)
    return Simulation(run.spans, in_flight, resident)


class _Run:
    def __init__(self, table: Sequence[Sequence[Action]], cost: Cost) -> None:
        self.table, self.cost = table, cost
        self.ranks = len(table)
        self.last_stage = max((a.stage for actions in table for a in actions), default=-1)
        self.spans: list[list[Span]] = [[] for _ in table]
        self.result: dict[Action, float] = {}
        """When the output of an F or I is there, on its own rank."""
        self.arrived: dict[Action, float] = {}
        """By the SEND, when its message reaches the other rank."""
        self.ended: dict[Action, float] = {}
        self.posted = [0.0] * self.ranks
        self.free: list[dict[str, float]] = [defaultdict(float) for _ in table]

    def check_whole(self, forward_only: bool) -> None:
        kinds = (Op.F,) if forward_only else (Op.F, Op.I, Op.W)
        microbatches = 1 + max((a.microbatch for actions in self.table for a in actions), default=-1)
        for rank, actions in enumerate(self.table):
            for action, times in Counter(actions).items():
                if times > 1:
                    raise ScheduleError(f"rank {rank}: {action} stands {times} times")
                if action.stage % self.ranks != rank:
                    raise ScheduleError(f"rank {rank}: {action} belongs to rank {action.stage % self.ranks}")
            found = {action for action in actions if action.op.computes}
            whole = {
                Action(op, stage, m)
                for op in kinds
                for stage in range(rank, self.last_stage + 1, self.ranks)
                for m in range(microbatches)
            }
            if found != whole:
                action = min(found ^ whole)
                raise ScheduleError(f"rank {rank}: {action} {'is missing' if action in whole else 'has no place here'}")

    def check_messages(self) -> None:
        """Every receive has its send, and between two ranks messages are taken in the order in which they were sent."""
        for sent_op, taken_op, step in ((Op.SEND_F, Op.RECV_F, 1), (Op.SEND_I, Op.RECV_I, -1)):
            for rank in range(self.ranks):
                sent = [(a.stage, a.microbatch) for a in self.table[rank] if a.op is sent_op]
                other = self.table[(rank + step) % self.ranks]
                taken = [(a.stage - step, a.microbatch) for a in other if a.op is taken_op]
                if sorted(sent) != sorted(taken):
                    stage, m = min(set(sent) ^ set(taken))
                    what = "never taken" if (stage, m) in sent else "never sent"
                    raise ScheduleError(f"{Action(sent_op, stage, m)} is {what}")
                if sent != taken:
                    stage, m = next(one for one, two in zip(sent, taken, strict=True) if one != two)
                    raise ScheduleError(f"{Action(sent_op, stage, m)} is taken in another order than it was sent in")

    def execute(self) -> None:
        places = [0] * self.ranks
        received: list[set[Action]] = [set() for _ in self.table]
        moved = True
        while moved:
            moved = False
            for rank, actions in enumerate(self.table):
                while places[rank] < len(actions) and self._act(rank, actions[places[rank]], received[rank]):
                    places[rank] += 1
                    moved = True
        stuck = [
            f"rank {r} at {actions[p]}" for r, (p, actions) in enumerate(zip(places, self.table, strict=True)) if p < len(actions)
        ]  # fmt: skip
        if stuck:
            raise ScheduleError(f"ranks wait for each other: {', '.join(stuck)}")

    def _act(self, rank: int, action: Action, received: set[Action]) -> bool:
        """False: what it waits for has not happened yet."""
        if action.op in (Op.RECV_F, Op.RECV_I):
            received.add(action)
            return True
        begin = self._earliest(rank, action, received)
        if begin is None:
            return False
        if action.op in (Op.SEND_F, Op.SEND_I):
            self.arrived[action] = begin + self.cost(action)
            self.spans[rank].append(Span(action, begin, self.arrived[action]))
            return True
        stream = _STREAMS[action.op]
        start = max(begin, self.free[rank][stream])
        end = start + self.cost(action)
        self.free[rank][stream] = end
        self.ended[action] = end
        if stream == "compute":
            self.posted[rank] = end
        if action.op in (Op.F, Op.I):
            self.result[action] = end
        elif action.op in _RESULTS:
            self.result[action._replace(op=_RESULTS[action.op])] = end
        self.spans[rank].append(Span(action, start, end))
        return True

    def _earliest(self, rank: int, action: Action, received: set[Action]) -> float | None:
        """When all that it needs is there; None while that is not known."""
        op = action.op
        if op in _RESULTS or op is Op.OFFLOAD:
            own = action._replace(op=_RESULTS.get(op, Op.F))
            if own not in self.result:
                raise ScheduleError(f"rank {rank}: {action} stands before {own}")
            # A host posts a message when it comes to it: after W, where backward is whole.
            posted = self.posted[rank] if op in (Op.SEND_F, Op.SEND_I) else 0.0
            return max(self.result[own], posted)
        if op is Op.ONLOAD:
            away = action._replace(op=Op.OFFLOAD)
            if away not in self.ended:
                raise ScheduleError(f"rank {rank}: {action} stands before {away}")
            return max(self.ended[away], self.posted[rank])  # begun together with the compute that comes next
        times = [0.0]
        if op is Op.W:
            times.append(self._own(rank, action, Op.I, self.ended))
        if op is Op.I:
            times.append(self._own(rank, action, Op.F, self.result))
            if action._replace(op=Op.OFFLOAD) in self.ended:
                times.append(self._own(rank, action, Op.ONLOAD, self.ended))
        need = needed(action, self.last_stage)
        if need is not None:
            there = self.result.get(need) if self.ranks == 1 else self._arrival(rank, action, need, received)
            if there is None:
                return None
            times.append(there)
        return max(times)

    def _arrival(self, rank: int, action: Action, need: Action, received: set[Action]) -> float | None:
        receive = action._replace(op=Op.RECV_F if action.op is Op.F else Op.RECV_I)
        if receive not in received:
            raise ScheduleError(f"rank {rank}: {action} stands before {receive}")
        return self.arrived.get(need._replace(op=Op.SEND_F if action.op is Op.F else Op.SEND_I))

    def _own(self, rank: int, action: Action, op: Op, times: dict[Action, float]) -> float:
        before = action._replace(op=op)
        if before not in times:
            raise ScheduleError(f"rank {rank}: {action} stands before {before}")
        return times[before]


def chunks_held(spans_of_ranks: Sequence[Sequence[Span]]) -> tuple[list[int], list[int]]:
    """(in flight, resident) of every rank, as `Simulation` has them."""
    in_flight, resident = [], []
    for spans in spans_of_ranks:
        chunks: list[tuple[float, int]] = []
        device: list[tuple[float, int]] = []
        for span in spans:
            op = span.action.op
            if op is Op.F:
                chunks.append((span.start, 1))
                device.append((span.start, 1))
            elif op is Op.W:
                chunks.append((span.end, -1))
                device.append((span.end, -1))
            elif op is Op.OFFLOAD:
                device.append((span.end, -1))
            elif op is Op.ONLOAD:
                device.append((span.start, 1))
        in_flight.append(_peak(chunks))
        resident.append(_peak(device))
    return in_flight, resident


def _peak(changes: list[tuple[float, int]]) -> int:
    """Of the running sum; at one moment, what goes goes first."""
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most
