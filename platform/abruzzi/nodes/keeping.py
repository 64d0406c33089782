"""The node controller's door to the rows of nodes, and the lease by which one of several controllers is the one that acts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Text, case, cast, delete, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.node import NodeFault, NodeState, NodeWord
from abruzzi.nodes.models import LeadershipRow, Moment, NodeRow
from abruzzi.nodes.records import NodeMemory, NodeRecord, Quarantine

_WRITTEN = ("kind", "pool", "state", "reason", "since", "facts", "attempts", "faults", "heartbeat_at", "observed_at")


async def remembered(session: AsyncSession) -> dict[str, NodeMemory]:
    """By name."""
    columns = (
        NodeRow.name, NodeRow.state, NodeRow.since, NodeRow.faults, NodeRow.quarantine, NodeRow.drain, NodeRow.forgiven_at,
    )  # fmt: skip
    rows = await session.execute(select(*columns).where(NodeRow.kind == "kubernetes"))
    return {
        row.name: NodeMemory(
            name=row.name,
            state=NodeState(row.state),
            since=row.since,
            faults=tuple(NodeFault.model_validate(fault) for fault in row.faults),
            quarantine=_quarantine(row.quarantine),
            drain=NodeWord.model_validate(row.drain) if row.drain else None,
            forgiven_at=row.forgiven_at,
        )
        for row in rows
    }


async def record(session: AsyncSession, records: Sequence[NodeRecord], *, now: datetime) -> None:
    """Rows as they were found, made where there are none. What people write (drain, a return) is left alone."""
    if not records:
        return
    statement = insert(NodeRow)
    new = statement.excluded
    # Somebody returned it since this was decided: the quarantine that was decided without knowing that is none.
    stays = NodeRow.forgiven_at.is_distinct_from(new.forgiven_at)
    changes: dict[str, Any] = {name: getattr(new, name) for name in _WRITTEN}
    changes["quarantine"] = case((stays, NodeRow.quarantine), else_=new.quarantine)
    # Row by row, in one go: as one statement it would be another for each number of rows, and compiled anew.
    rows = [_values(found, now) for found in records]
    await session.execute(statement.on_conflict_do_update(index_elements=[NodeRow.name], set_=changes), rows)


async def beat(session: AsyncSession, heard: Mapping[str, datetime | None], *, now: datetime) -> None:
    """Signs of life of nodes about which nothing else has changed."""
    if heard:
        names, moments = list(heard), [heard[name] for name in heard]
        news = select(
            func.unnest(cast(names, ARRAY(Text))).label("name"), func.unnest(cast(moments, ARRAY(Moment))).label("at")
        ).subquery()
        await session.execute(
            update(NodeRow).where(NodeRow.name == news.c.name).values(heartbeat_at=news.c.at, observed_at=now)
        )


async def forget(session: AsyncSession, names: Sequence[str]) -> None:
    await session.execute(delete(NodeRow).where(NodeRow.name.in_(names)))


async def forget_other_machines(session: AsyncSession, name: str, *, before: datetime) -> None:
    """Machines that the platform ran on under another name, as a container does that was made anew."""
    others = (NodeRow.kind == "local", NodeRow.name != name, NodeRow.observed_at < before)
    await session.execute(delete(NodeRow).where(*others))


async def lead(session: AsyncSession, name: str, owner: str, *, seconds: float, now: datetime) -> bool:
    """Whether `owner` is the one that does `name`: it was already, nobody else is, or the other's time is over.

    In one transaction with what the leader writes, this fences it: one that was stopped meanwhile gets False and writes nothing.
    """
    statement = insert(LeadershipRow).values(name=name, owner=owner, expires_at=now + timedelta(seconds=seconds))
    taken = statement.on_conflict_do_update(
        index_elements=[LeadershipRow.name],
        set_={"owner": statement.excluded.owner, "expires_at": statement.excluded.expires_at},
        where=(LeadershipRow.owner == owner) | (LeadershipRow.expires_at < now),
    ).returning(LeadershipRow.owner)
    return (await session.execute(taken)).first() is not None


async def resign(session: AsyncSession, name: str, owner: str) -> None:
    await session.execute(delete(LeadershipRow).where(LeadershipRow.name == name, LeadershipRow.owner == owner))


def _values(found: NodeRecord, now: datetime) -> dict[str, Any]:
    return {
        "name": found.name,
        "kind": found.kind,
        "pool": found.pool,
        "state": found.state.value,
        "reason": found.reason,
        "since": found.since,
        "facts": found.facts.model_dump(mode="json"),
        "attempts": {name: list(ranks) for name, ranks in found.attempts.items()},
        "heartbeat_at": found.heartbeat_at,
        "faults": [fault.model_dump(mode="json") for fault in found.faults],
        "quarantine": _stored(found.quarantine),
        "forgiven_at": found.forgiven_at,
        "observed_at": now,
    }


def _stored(quarantine: Quarantine | None) -> dict[str, Any] | None:
    if quarantine is None:
        return None
    return {
        "reason": quarantine.reason,
        "since": quarantine.since.isoformat(),
        "seen_at": quarantine.seen_at.isoformat(),
    }


def _quarantine(stored: Mapping[str, Any] | None) -> Quarantine | None:
    if not stored:
        return None
    since, seen_at = (datetime.fromisoformat(stored[key]) for key in ("since", "seen_at"))
    return Quarantine(stored["reason"], since, seen_at)
