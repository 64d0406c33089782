"""How many ranks an elastic stage runs with: fewer where the pool has no place for all, all again when it has. Pure.

A change is a stop like any other: the attempt saves at the step that it has reached, and the next one loads that checkpoint in its own layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from abruzzi.contracts.reason import Reason
from abruzzi.contracts.states import AttemptState
from abruzzi.engine.view import AttemptView, Elastic, Phase, Seen, StageView

NO_PLACE = (
    Reason.WAITS_FOR_QUOTA,
    Reason.WAITS_FOR_CPUS,
    Reason.WAITS_FOR_TOPOLOGY,
    Reason.WAITS_FOR_NODES,
    Reason.WAITS_FOR_TAINT,
)
"""Fewer ranks may find a place where so many found none. A place in the queue behind others is none of these: it is the same for fewer."""
MOST_DOUBLINGS = 6


@dataclass(frozen=True, slots=True)
class Resize:
    ranks: int
    sentence: str


def next_width(stage: StageView) -> int | None:
    """Ranks of the stage's next attempt; None: all."""
    if stage.elastic is None or not stage.attempts:
        return None
    last = stage.attempts[-1]
    width = last.resize_to or stage.ranks_of(last)
    return width if width in stage.elastic.widths and width != stage.world_size else None


def find_resize(stage: StageView, attempt: AttemptView, seen: Seen, now: float) -> Resize | None:
    """Whether a live attempt that nobody has told to stop should make way for one of another width."""
    if stage.elastic is None or seen.room is None:
        return None
    if seen.phase is Phase.PENDING and attempt.started_at is None:
        return _narrower(stage, stage.elastic, attempt, seen, seen.room, now)
    if seen.phase is Phase.RUNNING and attempt.state is AttemptState.RUNNING:
        return _wider(stage, stage.elastic, attempt, seen, seen.room, now)
    return None


def _narrower(
    stage: StageView, elastic: Elastic, attempt: AttemptView, seen: Seen, room: int, now: float
) -> Resize | None:
    """Of an attempt that waits in vain."""
    ranks, waited = stage.ranks_of(attempt), now - attempt.created_at
    if seen.waits_for not in NO_PLACE or waited < elastic.narrow_after:
        return None
    # What should have room and has found none for so long is held up by something that the estimate leaves out: a quota, other people's pods.
    most = room if room < ranks else ranks - 1
    fitting = [width for width in elastic.widths if width <= most]
    if not fitting:
        return None
    said = f" {seen.reason}" if seen.reason else ""
    return Resize(
        max(fitting),
        f"{ranks} ranks found no place for {waited:.0f} s: it goes on with {max(fitting)} of {stage.world_size}.{said}",
    )


def _wider(
    stage: StageView, elastic: Elastic, attempt: AttemptView, seen: Seen, room: int, now: float
) -> Resize | None:
    """Of one that runs with less than all, has got on, and could have more."""
    ranks = stage.ranks_of(attempt)
    wider = [width for width in elastic.widths if ranks < width <= room]
    if not wider or attempt.started_at is None:
        return None
    patience = elastic.widen_after * 2.0 ** min(tried_in_vain(stage), MOST_DOUBLINGS)
    steps = [beat.step for beats in (attempt.beats, seen.beats) for beat in beats.values()]
    if now - attempt.started_at < patience or max(steps, default=0) <= (attempt.resume_step or 0):
        return None
    return Resize(
        max(wider),
        f"There is room for {max(wider)} ranks again: it saves, and goes on with {max(wider)} instead of {ranks}.",
    )


def tried_in_vain(stage: StageView) -> int:
    """Attempts with more ranks than the one before that found no place, since one did."""
    count = 0
    for before, tried in pairwise(stage.attempts):
        if stage.ranks_of(tried) > stage.ranks_of(before):
            found_no_place = tried.resize_to is not None and tried.resize_to < stage.ranks_of(tried)
            count = count + 1 if found_no_place else 0
    return count
