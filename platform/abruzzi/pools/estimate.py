"""When what waits in a pool's queue will be let in. Pure, and silent rather than wrong: where it cannot be known there is no estimate.

Admission is played through as Kueue does it by default (BestEffortFIFO): in the order of the queue, whatever fits goes in, and what does not
fit keeps nobody behind it from going in. Quota becomes free when stages end that say how long they still take; those that do not say never end
here, and what is let in ahead holds its quota for good. It holds by the pace of what runs now, and unless somebody of higher priority comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST_PLAYED = 300
"""Of the queue's head; nobody can know about what is further back."""


@dataclass(frozen=True, slots=True)
class Ask:
    """In whatever units, the same for all."""

    cpus: float = 0.0
    memory: float = 0.0
    gpus: float = 0.0

    def fits(self, free: Ask) -> bool:
        return self.cpus <= free.cpus + 1e-9 and self.memory <= free.memory and self.gpus <= free.gpus

    def __add__(self, other: Ask) -> Ask:
        return Ask(self.cpus + other.cpus, self.memory + other.memory, self.gpus + other.gpus)

    def __sub__(self, other: Ask) -> Ask:
        return Ask(self.cpus - other.cpus, self.memory - other.memory, self.gpus - other.gpus)


@dataclass(frozen=True, slots=True)
class Holder:
    """A stage that holds quota."""

    holds: Ask
    seconds_left: float | None
    """None: it does not say."""


@dataclass(frozen=True, slots=True)
class Estimate:
    seconds: float | None
    ends: int = 0
    """So many stages end before."""
    basis: str = ""


def estimates(queue: Sequence[Ask], holders: Sequence[Holder], free: Ask, *, in_turn: bool = False) -> list[Estimate]:
    """One for each of the queue, in its order. `free`: of the quota, now. `in_turn`: nobody goes in before those ahead of it."""
    played = list(queue[:MOST_PLAYED])
    admitted: dict[int, Estimate] = {}
    ending = sorted((h for h in holders if h.seconds_left is not None), key=lambda h: h.seconds_left or 0.0)
    for count in range(len(ending) + 1):
        at = 0.0
        if count:
            at, free = ending[count - 1].seconds_left or 0.0, free + ending[count - 1].holds
        for index, ask in enumerate(played):
            if index not in admitted and ask.fits(free):
                free = free - ask
                admitted[index] = Estimate(at, count, _basis(count, len(holders)))
            elif index not in admitted and in_turn:
                break
        if len(admitted) == len(played):
            break
    silent = len(holders) - len(ending)
    return [
        admitted.get(index) or Estimate(None, basis=_none(index, len(played), silent, admitted))
        for index in range(len(queue))
    ]


def _basis(ends: int, holders: int) -> str:
    if ends == 0:
        return "what it asks for is free"
    which = "the stage that holds" if holders == 1 else f"{ends} of the {holders} stages that hold"
    return f"when {which} quota {'has' if ends == 1 else 'have'} ended, by their pace so far"


def _none(index: int, played: int, silent: int, admitted: dict[int, Estimate]) -> str:
    if index >= played:
        return f"more than {MOST_PLAYED} are ahead of it"
    if silent:
        return f"{silent} of the stages that hold quota {'does' if silent == 1 else 'do'} not say how long {'it takes' if silent == 1 else 'they take'}"
    if any(other < index for other in admitted):
        return "nobody knows how long those ahead of it will take"
    return "what holds the quota is not Abruzzi's, or the pool's quota is too small"
