"""Usage: what was held and where its time went, by project, pool, day, run or cause."""

from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum

from abruzzi.contracts.resources import Resource


class Spent(StrEnum):
    """Where held time goes. Every moment that an attempt holds its ranks is of exactly one of the first six."""

    TRAIN = "train"
    """The stage's own work, of whatever kind: steps of training, documents, evaluations."""
    CHECKPOINT = "checkpoint"
    """Saving: checkpoints, and committing what the stage made."""
    START_UP = "start_up"
    """From being given its place to the first work: image, loading, set-up."""
    HANG = "hang"
    """From a stalled rank's last sign of progress to its detection."""
    LOST_WORK = "lost_work"
    """Work and saving after the last committed checkpoint of an attempt that ended badly and was resumed behind it."""
    IDLE = "idle"
    """Held, and nobody works: ranks that are done and wait for others, a hang's end, a node that is gone."""
    QUEUE = "queue"
    """Waited with nothing held. Beside held time, never part of it."""


HELD = (Spent.TRAIN, Spent.CHECKPOINT, Spent.START_UP, Spent.HANG, Spent.LOST_WORK, Spent.IDLE)


class By(StrEnum):
    PROJECT = "project"
    CAUSE = "cause"
    POOL = "pool"
    DAY = "day"
    RUN = "run"


class Hours(Resource):
    gpu: float
    """GPU-hours: hours times the GPUs that were asked for."""
    cpu: float
    """CPU-hours, in pools with and without GPUs."""


class Causes(Resource):
    """They sum to the hours held."""

    train: Hours
    checkpoint: Hours
    start_up: Hours
    hang: Hours
    lost_work: Hours
    idle: Hours


class UsageRow(Resource):
    key: str
    """A project, cause, pool, day (UTC) or run's id."""
    name: str
    """For people: the run's name, else the key."""
    held: Hours
    causes: Causes
    queue: Hours
    """Of what was asked for, while nothing was held: beside `held`, not in it."""
    goodput: float | None
    """Share of `train` in what was held: of GPU-hours where there are any, else of CPU-hours. None: nothing was held."""


class UsageOut(Resource):
    from_day: date
    to_day: date
    """Both inclusive, in UTC."""
    by: By
    items: list[UsageRow]
    """Days in order; all others by what they held, most first."""
    total: UsageRow
    computed_at: datetime
    """Attempts that run count up to here."""
