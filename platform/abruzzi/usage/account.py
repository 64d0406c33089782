"""Where the time of an attempt went. Pure; integers of milliseconds, so that the causes sum exactly to what was held.

What is known of a rank is when its attempt began to hold its place, how many seconds a day its heartbeats spent in each phase, when the last
one came, and when and how the attempt ended. From that:

  held_at … first heartbeat            start-up: image, pods, imports
  between two heartbeats               the phase that the first of them named (`cause_of_phase`)
  last heartbeat … end                 the same phase goes on; after a hang: `hang` until it was detected, then idle; on a node or machine that failed: idle
  after the last checkpoint            work and saving become lost work once another attempt has resumed behind it

A rank that never reports (an image without the SDK) is taken to work from the moment that its attempt runs, unless others of its attempt do
report: then it has not come up yet. Queueing is the time from an attempt's creation until it holds something; back-off between two attempts is
neither held nor queued.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from abruzzi.contracts.states import PHASE_ENDED, AttemptState, Cause
from abruzzi.contracts.usage import Spent

_PHASES = {
    PHASE_ENDED: Spent.IDLE,
    "setup": Spent.START_UP,
    "load": Spent.START_UP,
    "save": Spent.CHECKPOINT,
    "commit": Spent.CHECKPOINT,
    "done": Spent.IDLE,
}
_SILENT = (Cause.NODE, Cause.INFRASTRUCTURE)
"""After the last heartbeat before such an end nothing is known to have been done."""
_LOSABLE = (Spent.TRAIN, Spent.CHECKPOINT)
_GIVES = (Spent.IDLE, Spent.TRAIN, Spent.CHECKPOINT, Spent.START_UP, Spent.HANG)
"""Whose time it is when clocks disagree, in this order."""

Account = Counter[tuple[date, Spent]]
"""Milliseconds by day (UTC) and cause."""


@dataclass(frozen=True, slots=True)
class RankFacts:
    spent: Mapping[str, Mapping[str, float]]
    """Seconds between heartbeats: {day: {phase: seconds}}."""
    phase: str
    """Of the last heartbeat."""
    heartbeat_at: datetime


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """Times have a zone. `held_at` None: it holds nothing yet, or never did."""

    created_at: datetime
    held_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    state: AttemptState
    cause: Cause | None = None
    detected_at: datetime | None = None
    """When a hang of it was detected."""
    kept_until: datetime | None = None
    """Its last checkpoint that a later attempt went on from; its creation when that began without any of its work. None: nobody has resumed."""
    world_size: int = 1
    ranks: Sequence[RankFacts] = ()


def cause_of_phase(phase: str) -> Spent:
    return _PHASES.get(phase, Spent.TRAIN)


def account(facts: AttemptFacts, now: datetime) -> Account:
    """Rank-milliseconds by day and cause, over all ranks; `queue` counts the ranks that waited. A running attempt counts up to `now`."""
    end = facts.ended_at or now
    total: Account = Counter()
    waited_until = facts.held_at or end
    for day, span in days(facts.created_at, waited_until):
        total[day, Spent.QUEUE] += span * facts.world_size
    if facts.held_at is None or facts.held_at >= end:
        return total
    for rank in facts.ranks:
        total += _rank(facts, rank, end)
    silent = facts.world_size - len(facts.ranks)
    if silent > 0:
        one = _silent(facts, end)
        total += Counter({key: value * silent for key, value in one.items()})
    return total


def days(start: datetime, end: datetime) -> Iterator[tuple[date, int]]:
    """(day, milliseconds of it), in UTC. Their sum is the distance of the two moments, each rounded to the millisecond."""
    at, last = _milliseconds(start), _milliseconds(end)
    while at < last:
        day = datetime.fromtimestamp(at // 1000, UTC).date()
        midnight = _milliseconds(datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC))
        until = min(last, midnight)
        yield day, until - at
        at = until


def _rank(facts: AttemptFacts, rank: RankFacts, end: datetime) -> Account:
    assert facts.held_at is not None
    counted: Account = Counter()
    for day, phases in rank.spent.items():
        for phase, seconds in phases.items():
            counted[date.fromisoformat(day), cause_of_phase(phase)] += round(seconds * 1000)
    between = sum(counted.values())
    last = _clamp(rank.heartbeat_at, facts.held_at, end)
    first = _clamp(rank.heartbeat_at - timedelta(milliseconds=between), facts.held_at, end)
    for day, span in days(facts.held_at, first):
        counted[day, Spent.START_UP] += span
    tail = _tail(facts, cause_of_phase(rank.phase), last, end)
    for cause, start, until in tail:
        for day, span in days(start, until):
            counted[day, cause] += span
    _settle(counted, facts.held_at, end)
    # What follows the last sign of work is no work that could be lost, unless it is taken for work itself.
    works_to = end if tail[0][0] in _LOSABLE else last
    _lose(facts, counted, max(first, facts.kept_until or first), works_to)
    return counted


def _silent(facts: AttemptFacts, end: datetime) -> Account:
    """A rank without heartbeats."""
    assert facts.held_at is not None
    runs_from = _clamp(facts.started_at or end, facts.held_at, end) if not facts.ranks else end
    counted: Account = Counter()
    for day, span in days(facts.held_at, runs_from):
        counted[day, Spent.START_UP] += span
    for cause, start, until in _tail(facts, Spent.TRAIN, runs_from, end, silent=True):
        for day, span in days(start, until):
            counted[day, cause] += span
    _lose(facts, counted, max(runs_from, facts.kept_until or runs_from), end)
    return counted


def _tail(
    facts: AttemptFacts, cause: Spent, last: datetime, end: datetime, *, silent: bool = False
) -> list[tuple[Spent, datetime, datetime]]:
    """From the last heartbeat to the end."""
    if facts.detected_at is not None:
        detected = _clamp(facts.detected_at, last, end)
        return [(Spent.HANG, last, detected), (Spent.IDLE, detected, end)]
    if facts.ended_at is not None and facts.cause in _SILENT and not silent:
        return [(Spent.IDLE, last, end)]
    return [(cause, last, end)]


def _lose(facts: AttemptFacts, counted: Account, start: datetime, end: datetime) -> None:
    if facts.kept_until is None or facts.ended_at is None or facts.state is AttemptState.SUCCEEDED:
        return
    for day, span in days(start, end):
        for cause in _LOSABLE:
            lost = min(span, counted[day, cause])
            counted[day, cause] -= lost
            counted[day, Spent.LOST_WORK] += lost
            span -= lost


def _settle(counted: Account, start: datetime, end: datetime) -> None:
    """A rank's clock is its own: what is short of the time held is idle, what is over it is taken away, day by day."""
    held: Counter[date] = Counter(dict(days(start, end)))
    for day in {day for day, _ in counted} | set(held):
        over = sum(value for (other, _), value in counted.items() if other == day) - held[day]
        if over < 0:
            counted[day, Spent.IDLE] -= over
        for cause in _GIVES:
            taken = max(0, min(over, counted[day, cause]))
            counted[day, cause] -= taken
            over -= taken


def _clamp(moment: datetime, low: datetime, high: datetime) -> datetime:
    return min(max(moment, low), high)


def _milliseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
