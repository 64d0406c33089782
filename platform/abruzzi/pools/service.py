"""Pools as people define them and as the pool controller sees them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.errors import AbruzziError, Conflict, NotFound
from abruzzi.contracts.graph import nearest
from abruzzi.contracts.pool import LOCAL, UNSEEN, Amounts, PoolOut, PoolSpec, PoolStatus
from abruzzi.contracts.recipe import Recipe
from abruzzi.pools.models import PoolRow


async def list_pools(session: AsyncSession, *, default: str) -> list[PoolOut]:
    """By name."""
    ranks = await _ranks(session)
    rows = (await session.execute(select(PoolRow).order_by(PoolRow.name))).scalars()
    return [_out(row, ranks, default) for row in rows]


async def get(session: AsyncSession, name: str, *, default: str) -> PoolOut:
    return _out(await _row(session, name), await _ranks(session), default)


async def spec_of(session: AsyncSession, name: str) -> PoolSpec:
    """Raises NotFound with the nearest name."""
    return PoolSpec.model_validate((await _row(session, name)).spec)


async def asked(session: AsyncSession, name: str, ranks: int, *, threads: int | None) -> Amounts | None:
    """What so many ranks get in the pool as it is now; None for a pool that there is not."""
    row = await session.get(PoolRow, name)
    if row is None:
        return None
    capacity = PoolStatus.model_validate({**UNSEEN, **row.status}).capacity
    return PoolSpec.model_validate(row.spec).needs(ranks, threads=threads, capacity=capacity)


async def list_specs(session: AsyncSession) -> list[PoolSpec]:
    rows = (await session.execute(select(PoolRow).order_by(PoolRow.name))).scalars()
    return [PoolSpec.model_validate(row.spec) for row in rows]


async def apply(
    session: AsyncSession, spec: PoolSpec, *, expected_version: int | None, actor: str, now: datetime
) -> None:
    """Make or change a pool. Raises Conflict when it changed since `expected_version`, or when its kind would change under its runs."""
    row = await session.get(PoolRow, spec.name, with_for_update=True)
    if expected_version is not None and (row is None or row.version != expected_version):
        raise AbruzziError(
            "version_conflict",
            f"Pool {spec.name!r} changed meanwhile.",
            status=412,
            hint="Look at it again, then repeat your change.",
        )
    if row is None:
        session.add(
            PoolRow(
                name=spec.name,
                spec=spec.model_dump(mode="json"),
                status=UNSEEN,
                version=1,
                updated_by=actor,
                updated_at=now,
            )
        )
    else:
        if row.spec["kind"] != spec.kind:
            await _refuse_used(session, spec.name, "Its kind cannot change")
        row.spec, row.version = spec.model_dump(mode="json"), row.version + 1
        row.updated_by, row.updated_at = actor, now
    await session.flush()


async def delete(session: AsyncSession, name: str) -> None:
    """Raises Conflict while runs use it."""
    row = await _row(session, name, lock=True)
    await _refuse_used(session, name, "It cannot be removed")
    await session.delete(row)
    await session.flush()


async def observe(session: AsyncSession, name: str, status: Mapping[str, Any]) -> None:
    """By the pool controller; leaves the version alone."""
    row = await session.get(PoolRow, name, with_for_update=True)
    if row is not None:
        row.status = dict(status)


async def assign(session: AsyncSession, recipe: Recipe, *, default: str) -> dict[str, str]:
    """{stage: pool}, with `local` as the platform's default pool.

    Raises AbruzziError `no_pool` for a pool that there is not, `never_fits` for a stage that its pool can never hold.
    """
    known = {pool.name: pool for pool in await list_specs(session)}
    assigned: dict[str, str] = {}
    for stage in recipe.stage:
        wanted = default if stage.resources.pool == LOCAL else stage.resources.pool
        pool = known.get(wanted)
        if pool is None:
            raise AbruzziError(
                "no_pool",
                f"stage.{stage.id}.resources.pool: there is no pool {wanted!r}.",
                status=422,
                hint=f"{nearest(wanted, list(known))} `abruzzi pools list` shows them.",
            )
        sentence = pool.never_fits(stage.resources.ranks, threads=stage.resources.threads)
        if sentence is not None:
            raise AbruzziError(
                "never_fits",
                f"stage.{stage.id}.resources: {sentence}.",
                status=422,
                hint="Use fewer ranks or another pool, or ask an administrator for more quota.",
            )
        assigned[stage.id] = wanted
    return assigned


async def _row(session: AsyncSession, name: str, *, lock: bool = False) -> PoolRow:
    row = await session.get(PoolRow, name, with_for_update=lock)
    if row is None:
        raise NotFound("pool", name)
    return row


async def _refuse_used(session: AsyncSession, name: str, what: str) -> None:
    running, waiting = (await _ranks(session)).get(name, (0, 0))
    if running or waiting:
        raise Conflict(
            f"Pool {name!r} is in use by {running + waiting} ranks of runs that have not ended. {what} now.",
            hint="Wait for them, or cancel them.",
        )


async def _ranks(session: AsyncSession) -> dict[str, tuple[int, int]]:
    """{pool: (running, waiting)} over all projects: how full a pool is is no secret of its users."""
    rows = await session.execute(text("SELECT pool, running, waiting FROM abruzzi_pool_ranks()"))
    return {r.pool: (int(r.running), int(r.waiting)) for r in rows}


def _out(row: PoolRow, ranks: Mapping[str, tuple[int, int]], default: str) -> PoolOut:
    running, waiting = ranks.get(row.name, (0, 0))
    return PoolOut(
        name=row.name,
        spec=PoolSpec.model_validate(row.spec),
        status=PoolStatus.model_validate({**UNSEEN, **row.status}),
        is_default=row.name == default,
        running_ranks=running,
        waiting_ranks=waiting,
        version=row.version,
        updated_at=row.updated_at,
    )
