"""A pool's queue: who waits in which order and until when, over all projects, with the names of one's own only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.errors import NotFound
from abruzzi.contracts.pool import UNSEEN, Amounts, PoolSpec, PoolStatus
from abruzzi.contracts.queue import ORDERS, OrderedBy, QueueEntry, QueueOut, WaitOut
from abruzzi.contracts.reason import Reason
from abruzzi.pools.estimate import Ask, Estimate, Holder, estimates
from abruzzi.pools.models import PoolRow

KUEUES = {"cpu": "cpus", "memory": "memory", "nvidia.com/gpu": "gpus"}
_QUEUE = text("SELECT * FROM abruzzi_pool_queue(:pool)")
_HOLDERS = text("SELECT * FROM abruzzi_pool_holders(:pool)")
_FORGET = text("DELETE FROM queue_entries WHERE pool = :pool AND attempt_id <> ALL (:ids)")
_PLACE = text("""
    INSERT INTO queue_entries (attempt_id, project_id, pool, position, since, ordered_by)
    SELECT a.id, a.project_id, :pool, p.position, p.since, p.ordered_by
    FROM jsonb_to_recordset(CAST(:places AS jsonb)) AS p (attempt_id text, position integer, since timestamptz, ordered_by text)
    JOIN attempts a ON a.id = p.attempt_id ORDER BY a.id
    ON CONFLICT (attempt_id) DO UPDATE SET pool = excluded.pool, position = excluded.position, since = excluded.since, ordered_by = excluded.ordered_by
    WHERE (queue_entries.pool, queue_entries.position, queue_entries.since, queue_entries.ordered_by)
          IS DISTINCT FROM (excluded.pool, excluded.position, excluded.since, excluded.ordered_by)
""")
_QUEUEING = (Reason.WAITS_IN_QUEUE, Reason.WAITS_FOR_QUOTA, Reason.WAITS_FOR_CPUS)
"""Reasons that end when something becomes free: of others nobody knows when."""


@dataclass(frozen=True, slots=True)
class Place:
    """Of an attempt in its pool's queue, as the cluster has it."""

    attempt_id: str
    position: int
    """From 1, over everything that waits there, also what is not Abruzzi's."""
    since: datetime
    ordered_by: OrderedBy


async def observe(session: AsyncSession, pool: str, places: Sequence[Place]) -> None:
    """By the pool controller: these wait, and nothing else does. Always in one order, so that two controllers do not lock each other out."""
    await session.execute(_FORGET, {"pool": pool, "ids": sorted(place.attempt_id for place in places)})
    if places:
        rows = [{**asdict(place), "since": place.since.isoformat()} for place in places]
        await session.execute(_PLACE, {"pool": pool, "places": json.dumps(rows)})


async def queue(session: AsyncSession, name: str, *, now: datetime, limit: int) -> QueueOut:
    """Raises NotFound for a pool that there is not."""
    view = await look(session, name, now=now)
    return QueueOut(
        pool=name,
        order=view.order,
        order_note=ORDERS[view.order],
        observed_at=view.status.observed_at,
        length=len(view.waiting),
        items=[
            _entry(row, position, view.estimate(index)) for index, (row, position) in enumerate(view.waiting[:limit])
        ],
    )


@dataclass(frozen=True, slots=True)
class QueueView:
    """Everything about a pool's queue at one moment."""

    spec: PoolSpec
    status: PoolStatus
    quota: Amounts | None
    """The pool's, or what the machine has that it is."""
    waiting: Sequence[tuple[Row[Any], int]]
    """With positions, in their order."""
    holders: Sequence[Holder]
    free: Amounts | None
    used: Amounts | None
    order: OrderedBy
    estimated: Sequence[Estimate]

    def estimate(self, index: int) -> Estimate:
        row, _ = self.waiting[index]
        return _trusted(self.estimated[index], row.waits_for, self.free is not None)

    def estimate_next(self, asked: Amounts) -> Estimate:
        """Of one more at the queue's end."""
        if self.free is None:
            return Estimate(0.0, basis=_NO_QUEUE)
        asks = [*(_ask(row) for row, _ in self.waiting), ask_of(asked)]
        return _estimates(asks, self.holders, self.free, self.spec, self.status)[-1]


_NO_QUEUE = "nobody queues in this pool"


async def look(session: AsyncSession, name: str, *, now: datetime) -> QueueView:
    """Raises NotFound."""
    row = await session.get(PoolRow, name)
    if row is None:
        raise NotFound("pool", name, hint="`abruzzi pools list` shows them.")
    spec, status = PoolSpec.model_validate(row.spec), PoolStatus.model_validate({**UNSEEN, **row.status})
    waiting = _positions((await session.execute(_QUEUE, {"pool": name})).all())
    holders = [_holder(held, now) for held in (await session.execute(_HOLDERS, {"pool": name})).all()]
    quota = spec.quota or status.capacity
    used = _used(status, holders) if quota is not None else None
    free = _minus(quota, used) if quota is not None and used is not None else None
    if free is not None:
        estimated = _estimates([_ask(row) for row, _ in waiting], holders, free, spec, status)
    else:
        estimated = [Estimate(None, basis=_NO_QUEUE)] * len(waiting)
    ordered_by = next((w.ordered_by for w, _ in waiting if w.ordered_by), None)
    order: OrderedBy = ordered_by or "priority"
    if spec.quota is None:
        order = "engine" if quota is None else "machine"
    return QueueView(spec, status, quota, waiting, holders, free, used, order, estimated)


def wait_of(
    view: QueueView, attempt_id: str, *, code: Reason, message: str, since: datetime, ranks: int, asked: Amounts
) -> WaitOut:
    """Why this attempt does not run yet."""
    index = next((i for i, (row, _) in enumerate(view.waiting) if row.attempt_id == attempt_id), None)
    estimate = Estimate(None, basis="it has left the queue, and the cluster does not say how long this will take")
    position = None
    if index is not None:
        row, position = view.waiting[index]
        estimate, since = _trusted(view.estimated[index], code, view.free is not None), row.since
    return WaitOut(
        code=code,
        pool=view.spec.name,
        position=position if view.free is not None else None,
        queue_length=len(view.waiting),
        ranks=ranks,
        asked=asked,
        quota=view.quota,
        used=view.used,
        free=view.free,
        message=message,
        since=since,
        eta_seconds=estimate.seconds,
        eta_basis=estimate.basis,
    )


def _estimates(
    asks: Sequence[Ask], holders: Sequence[Holder], free: Amounts, spec: PoolSpec, status: PoolStatus
) -> list[Estimate]:
    """A machine lets nobody pass, and a stage that asks for more than it has gets all of it."""
    if status.capacity is not None:
        asks = [replace(ask, cpus=min(ask.cpus, status.capacity.cpus)) for ask in asks]
    return estimates(asks, holders, ask_of(free), in_turn=spec.kind == "local")


def _trusted(estimate: Estimate, code: str | None, has_queue: bool) -> Estimate:
    """By these numbers it may fit already. When the cluster says that it does not, the numbers do not tell the whole."""
    if not has_queue:
        return Estimate(None, basis=_NO_QUEUE)
    if code is not None and code not in (*_QUEUEING, Reason.STARTING):
        return Estimate(None, basis="it waits for more than quota, and nobody knows how long that takes")
    if code == Reason.WAITS_FOR_QUOTA and estimate.seconds == 0:
        return Estimate(None, basis="by these numbers it would fit now, and Kueue says that it does not")
    return estimate


def _positions(rows: Sequence[Row[Any]]) -> list[tuple[Row[Any], int]]:
    """Those that no controller has seen in the queue yet come behind the others."""
    found: list[tuple[Row[Any], int]] = []
    last = 0
    for row in rows:
        last = row.position if row.position is not None else last + 1
        found.append((row, last))
    return found


def _entry(row: Row[Any], position: int, estimate: Estimate) -> QueueEntry:
    return QueueEntry(
        position=position,
        mine=row.mine,
        project_id=row.project_id,
        run_id=row.run_id,
        run_name=row.run_name,
        stage_id=row.stage_id,
        attempt_id=row.attempt_id,
        ranks=row.ranks,
        gpus=row.gpus,
        cpus=row.cpus,
        memory=row.memory,
        since=row.since,
        code=Reason(row.waits_for) if row.waits_for else Reason.STARTING,
        reason=row.reason,
        eta_seconds=estimate.seconds,
    )


def _holder(row: Row[Any], now: datetime) -> Holder:
    """Seconds left at the pace of the current phase, as runs show it."""
    holds = _ask(row)
    if row.total_steps is None or row.heartbeat_at is None:
        return Holder(holds, None)
    steps, seconds = row.step - row.first_step, (row.heartbeat_at - row.first_at).total_seconds()
    if steps <= 0 or seconds <= 0:
        return Holder(holds, None)
    left = (row.total_steps - row.step) * seconds / steps - (now - row.heartbeat_at).total_seconds()
    return Holder(holds, max(0.0, left))


def _used(status: PoolStatus, holders: Sequence[Holder]) -> Amounts:
    """What Kueue counts, or what our own stages hold where that is more: its word may be some seconds old."""
    ours = sum((holder.holds for holder in holders), Ask())
    told = {field: status.used.get(name, 0.0) for name, field in KUEUES.items()}
    return Amounts(
        cpus=max(ours.cpus, told["cpus"]),
        memory=int(max(ours.memory, told["memory"])),
        gpus=int(max(ours.gpus, told["gpus"])),
    )


def _minus(quota: Amounts, used: Amounts) -> Amounts:
    """What was borrowed leaves nothing free."""
    return Amounts(
        cpus=max(0.0, quota.cpus - used.cpus),
        memory=max(0, quota.memory - used.memory),
        gpus=max(0, quota.gpus - used.gpus),
    )


def _ask(row: Row[Any]) -> Ask:
    return Ask(row.cpus, row.memory, row.gpus)


def ask_of(amounts: Amounts) -> Ask:
    return Ask(amounts.cpus, amounts.memory, amounts.gpus)


def lacking(asked: Amounts, free: Amounts) -> str | None:
    """The field of which less is free than asked for: GPUs before CPUs before memory."""
    return next((field for field in ("gpus", "cpus", "memory") if getattr(asked, field) > getattr(free, field)), None)
