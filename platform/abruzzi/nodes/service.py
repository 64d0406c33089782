"""Nodes as people see and steer them. What the controller writes is in keeping.py."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.errors import Conflict, NotFound
from abruzzi.contracts.node import (
    NodeAttempt,
    NodeFacts,
    NodeFault,
    NodeListOut,
    NodeOut,
    NodeState,
    NodeWord,
    lemon_score,
)
from abruzzi.nodes.models import NodeRow
from abruzzi.runs import query

STALE = timedelta(seconds=90)
"""The controller writes each row at least every 30 s."""
NOBODY = "No controller has reported a node yet."
_RUN_ID_LENGTH = 10


async def list_nodes(
    session: AsyncSession, *, pool: str | None = None, state: NodeState | None = None, now: datetime
) -> NodeListOut:
    """By name."""
    rows = list((await session.execute(select(NodeRow).order_by(NodeRow.name))).scalars())
    note = _note(rows, now)
    if pool is not None:
        rows = [row for row in rows if row.pool == pool]
    if state is not None:
        rows = [row for row in rows if row.state == state]
    return NodeListOut(items=await _outs(session, rows, now), note=note)


async def get(session: AsyncSession, name: str, *, now: datetime) -> NodeOut:
    (out,) = await _outs(session, [await _row(session, name)], now)
    return out


async def drain(session: AsyncSession, name: str, *, reason: str, actor: str, now: datetime) -> None:
    """Nothing new is placed there, what runs there saves and goes on elsewhere. Asking again changes nothing."""
    row = await _row(session, name, lock=True)
    _refuse_local(row)
    if row.drain is None:
        row.drain = NodeWord(reason=reason, by=actor, at=now).model_dump(mode="json")
        await session.flush()


async def return_(session: AsyncSession, name: str, *, reason: str, actor: str, now: datetime) -> None:
    """It takes part again: no drain, no quarantine, and its faults so far do not count any more."""
    row = await _row(session, name, lock=True)
    _refuse_local(row)
    row.drain, row.quarantine, row.forgiven_at = None, None, now
    row.returned = NodeWord(reason=reason, by=actor, at=now).model_dump(mode="json")
    await session.flush()


def _refuse_local(row: NodeRow) -> None:
    if row.kind == "local":
        raise Conflict(
            f"Node {row.name!r} is the machine that the platform itself runs on.",
            code="local_node",
            hint="Ctrl-C on `abruzzi up` lets its stages save and stop; the next `abruzzi up` goes on with them.",
        )


def _note(rows: Sequence[NodeRow], now: datetime) -> str | None:
    if not rows:
        return NOBODY
    newest = max(row.observed_at for row in rows)
    if now - newest > STALE:
        seconds = (now - newest).total_seconds()
        return (
            f"The node controller has not looked for {seconds:.0f} s: this is how things were at {newest:%H:%M:%S} UTC."
        )
    return None


async def _row(session: AsyncSession, name: str, *, lock: bool = False) -> NodeRow:
    row = await session.get(NodeRow, name, with_for_update=lock)
    if row is None:
        raise NotFound("node", name, hint="`abruzzi nodes list` shows them.")
    return row


async def _outs(session: AsyncSession, rows: Sequence[NodeRow], now: datetime) -> list[NodeOut]:
    visible = await query.visible_attempts(session, [a for row in rows for a in row.attempts])
    return [_out(row, visible, now) for row in rows]


def _out(row: NodeRow, visible: Collection[str], now: datetime) -> NodeOut:
    faults = [NodeFault.model_validate(fault) for fault in row.faults]
    facts = NodeFacts.model_validate(row.facts)
    return NodeOut(
        name=row.name,
        pool=row.pool,
        kind="local" if row.kind == "local" else "kubernetes",
        state=NodeState(row.state),
        reason=row.reason,
        since=row.since,
        **dict(facts),
        heartbeat_at=row.heartbeat_at,
        lemon_score=round(lemon_score(faults, now=now, forgiven_at=row.forgiven_at), 3),
        faults=faults,
        attempts=[_attempt(name, ranks) for name, ranks in sorted(row.attempts.items()) if name in visible],
        hidden_attempts=sum(name not in visible for name in row.attempts),
        drain=NodeWord.model_validate(row.drain) if row.drain else None,
        returned=NodeWord.model_validate(row.returned) if row.returned else None,
        observed_at=row.observed_at,
    )


def _attempt(attempt_id: str, ranks: list[int]) -> NodeAttempt:
    run_id, rest = attempt_id[:_RUN_ID_LENGTH], attempt_id[_RUN_ID_LENGTH + 1 :]
    return NodeAttempt(attempt_id=attempt_id, run_id=run_id, stage_id=rest.rsplit("-", 1)[0], ranks=sorted(ranks))
