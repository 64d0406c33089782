"""Execute an action table in virtual time where all ranks compute on the same cores: each is as fast as the others that compute leave it.

A rank does one thing at a time, in the table's order. Messages arrive by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from abruzzi.plan.pipeline.actions import Action, Op
from abruzzi.plan.pipeline.order import needed
from abruzzi.plan.pipeline.simulate import Cost, ScheduleError, Simulation, Span, chunks_held

_NOTHING = 1e-12
"""Seconds that rounding may leave."""
_RESULTS = {Op.F: Op.SEND_F, Op.I: Op.SEND_I}


def simulate_shared(
    table: Sequence[Sequence[Action]], cost: Cost, *, copies: int, speed: Callable[[int], float]
) -> Simulation:
    """`copies`: processes that do the same as each rank (its data ranks). `speed`: of each of so many processes that compute at once.

    Raises ScheduleError: ranks wait for each other, or an action is none of F, I, W and messages.
    """
    run = _Shared(table, cost)
    while not run.done:
        busy = len(run.left)
        pace = speed(busy * copies) if busy else 1.0
        run.advance(pace)
    in_flight, resident = chunks_held(run.spans)
    return Simulation(run.spans, in_flight, resident)


class _Shared:
    def __init__(self, table: Sequence[Sequence[Action]], cost: Cost) -> None:
        self.table, self.cost = table, cost
        self.last_stage = max((a.stage for actions in table for a in actions), default=-1)
        self.now = 0.0
        self.places = [0] * len(table)
        self.left: dict[int, float] = {}
        """Of ranks that compute: seconds of their action that are still to do, at full speed."""
        self.began = [0.0] * len(table)
        self.arrived: dict[Action, float] = {}
        """By F or I, when its message reaches the next rank."""
        self.spans: list[list[Span]] = [[] for _ in table]
        self._begin_what_can()

    @property
    def done(self) -> bool:
        return all(place == len(actions) for place, actions in zip(self.places, self.table, strict=True))

    def advance(self, pace: float) -> None:
        """To the next moment at which something ends or arrives."""
        ends = self.now + min((left / pace for left in self.left.values()), default=math.inf)
        comes = min((at for at in self.arrived.values() if at > self.now), default=math.inf)
        before, self.now = self.now, min(ends, comes)
        if self.now == math.inf:
            stuck = [f"rank {r} at {actions[p]}" for r, (p, actions) in enumerate(zip(self.places, self.table, strict=True)) if p < len(actions)]  # fmt: skip
            raise ScheduleError(f"ranks wait for each other: {', '.join(stuck)}")
        for rank in list(self.left):
            self.left[rank] -= (self.now - before) * pace
            if self.left[rank] <= _NOTHING:
                del self.left[rank]
                self.spans[rank].append(Span(self.table[rank][self.places[rank]], self.began[rank], self.now))
                self.places[rank] += 1
        self._begin_what_can()

    def _begin_what_can(self) -> None:
        before = None
        while before != self.places:  # what one sends may be what another, that was asked before, waits for
            before = list(self.places)
            for rank in range(len(self.table)):
                self._begin(rank)

    def _begin(self, rank: int) -> None:
        actions = self.table[rank]
        while rank not in self.left and self.places[rank] < len(actions):
            action = actions[self.places[rank]]
            if action.op.computes:
                if not self._is_there(action):
                    return
                self.left[rank], self.began[rank] = self.cost(action), self.now
            elif action.op in (Op.SEND_F, Op.SEND_I):
                self.arrived[action] = self.now + self.cost(action)
                self.places[rank] += 1
            elif action.op in (Op.RECV_F, Op.RECV_I):
                self.places[rank] += 1
            else:
                raise ScheduleError(f"{action}: on shared cores nothing runs beside compute; make the table without it")

    def _is_there(self, action: Action) -> bool:
        need = needed(action, self.last_stage)
        if need is None or len(self.table) == 1:
            return True
        return self.arrived.get(need._replace(op=_RESULTS[need.op]), math.inf) <= self.now
