"""What waits for a pool: its queue, and why one stage does not run yet."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from abruzzi.contracts.pool import Amounts
from abruzzi.contracts.reason import Reason
from abruzzi.contracts.resources import Resource

OrderedBy = Literal["kueue", "priority", "engine", "machine"]

ORDERS: dict[OrderedBy, str] = {
    "kueue": "As Kueue itself counts its queue.",
    "priority": "By the priority and age of Kueue's Workloads: this cluster does not serve Kueue's own word on positions.",
    "engine": "Nobody queues here: stages start as they come.",
    "machine": "As they came: each starts when those ahead of it have started and the machine has processors for it.",
}


class QueueEntry(Resource):
    position: int
    """From 1."""
    mine: bool
    """Of a project that the caller sees. Of others there are figures and no names."""
    project_id: str | None
    run_id: str | None
    run_name: str | None
    stage_id: str | None
    attempt_id: str | None
    ranks: int
    gpus: int
    cpus: float
    memory: int
    """Bytes, in all."""
    since: datetime
    code: Reason
    reason: str | None
    """The cluster's own words."""
    eta_seconds: float | None
    """Until it is let in; None: no estimate, rather than a made-up one."""


class QueueOut(Resource):
    pool: str
    order: OrderedBy
    order_note: str
    observed_at: datetime | None
    """When the pool controller last looked."""
    length: int
    """All that wait; `items` are the first of them."""
    items: list[QueueEntry]


class WaitOut(Resource):
    """Why a stage that could run does not run yet, with numbers."""

    code: Reason
    pool: str
    position: int | None
    """In the pool's queue, from 1; None: it is not in it, or nobody has looked yet."""
    queue_length: int
    ranks: int
    asked: Amounts
    quota: Amounts | None
    used: Amounts | None
    free: Amounts | None
    """Of the pool's own quota; None: it has none."""
    message: str
    """The cluster's own words."""
    since: datetime
    eta_seconds: float | None
    eta_basis: str
    """What the estimate stands on, or why there is none."""
