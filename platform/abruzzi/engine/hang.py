"""Hang detection: deadlines fit themselves to what each phase's steps have taken so far."""

from __future__ import annotations

from dataclasses import dataclass

from abruzzi.contracts.states import PHASE_ENDED
from abruzzi.engine.policy import HANG_FACTOR, HANG_FLOOR_SECONDS, HANG_UNKNOWN_SECONDS
from abruzzi.engine.view import AttemptView, RankBeat, Seen, StageView


@dataclass(frozen=True, slots=True)
class Stall:
    rank: int
    sentence: str


def find_stall(stage: StageView, attempt: AttemptView, seen: Seen, now: float) -> Stall | None:
    """The rank that is furthest behind its deadline, or None.

    A workload that never reports (a container that does not use the SDK) is only held to a deadline that the recipe sets.
    """
    started = attempt.started_at if attempt.started_at is not None else attempt.created_at
    beats = newest_beats(attempt, seen)
    if not beats:
        return _silence(stage, started, seen, now)
    worst: tuple[float, Stall] | None = None
    for rank in range(stage.ranks_of(attempt)):
        if rank in seen.ended_ranks:
            continue  # it has done its part, and waits for nothing
        beat = beats.get(rank, RankBeat(0, "setup", started))
        if beat.phase == PHASE_ENDED:
            continue  # the same, of a rank whose pod goes on with others
        since = max(beat.at, started)
        if rank not in seen.beats:
            # It speaks over HTTP alone. While the API was away it could not be heard; from its return it has the whole deadline again.
            if seen.heard_since is None:
                continue
            since = max(since, seen.heard_since)
        deadline = deadline_seconds(stage, beat.phase)
        late = now - since - deadline
        if late > 0 and (worst is None or late > worst[0]):
            sentence = f"Rank {rank} made no progress for {now - since:.0f} s in phase {beat.phase!r} at step {beat.step} (deadline {deadline:.0f} s)."
            worst = (late, Stall(rank, sentence))
    return worst[1] if worst else None


def _silence(stage: StageView, started: float, seen: Seen, now: float) -> Stall | None:
    if stage.hang_seconds is None or seen.heard_since is None:
        return None
    silent = now - max(started, seen.heard_since)
    if silent <= stage.hang_seconds:
        return None
    return Stall(0, f"No rank has reported for {silent:.0f} s (deadline {stage.hang_seconds:.0f} s).")


def deadline_seconds(stage: StageView, phase: str) -> float:
    if stage.hang_seconds is not None:
        return stage.hang_seconds
    p99 = stage.phase_seconds.get(phase)
    return HANG_UNKNOWN_SECONDS if p99 is None else max(HANG_FLOOR_SECONDS, HANG_FACTOR * p99)


def newest_beats(attempt: AttemptView, seen: Seen) -> dict[int, RankBeat]:
    """Of the database's (posted over HTTP) and the executor's (from files): an outage of the API alone is no hang."""
    beats = dict(attempt.beats)
    for rank, beat in seen.beats.items():
        if rank not in beats or beat.at > beats[rank].at:
            beats[rank] = beat
    return beats
