"""Recipes by name and version. Submitting the same text again is the same version."""

from __future__ import annotations

import hashlib
from datetime import datetime

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.recipe import Recipe
from abruzzi.recipes.models import RecipeRow


async def save(
    session: AsyncSession, project_id: str, recipe: Recipe, toml: str, *, actor: str, now: datetime
) -> RecipeRow:
    """The newest version if it has these bytes, else the next one."""
    digest = hashlib.sha256(toml.encode()).hexdigest()
    newest = await latest(session, project_id, recipe.name)
    if newest is not None and newest.digest == digest:
        return newest  # without the lock: a sweep's or a night's submissions of one recipe must not wait for each other's commits
    # One writer a name at a time: versions have no gaps and no duplicates.
    await session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 742))"), {"name": f"{project_id}/{recipe.name}"}
    )
    newest = await latest(session, project_id, recipe.name)
    if newest is not None and newest.digest == digest:
        return newest
    row = RecipeRow(
        project_id=project_id,
        name=recipe.name,
        version=newest.version + 1 if newest else 1,
        digest=digest,
        toml=toml,
        resolved=recipe.resolved(),
        created_by=actor,
        created_at=now,
    )
    session.add(row)
    await session.flush()
    return row


async def latest(session: AsyncSession, project_id: str, name: str) -> RecipeRow | None:
    query = (
        select(RecipeRow)
        .where(RecipeRow.project_id == project_id, RecipeRow.name == name)
        .order_by(RecipeRow.version.desc())
        .limit(1)
    )
    return (await session.execute(query)).scalar_one_or_none()


async def list_latest(session: AsyncSession, *, after: str | None = None, limit: int = 50) -> list[RecipeRow]:
    """Newest version of each name, by name."""
    newest = (
        select(RecipeRow.project_id, RecipeRow.name, func.max(RecipeRow.version).label("version"))
        .group_by(RecipeRow.project_id, RecipeRow.name)
        .subquery()
    )
    query = (
        select(RecipeRow)
        .join(
            newest,
            (RecipeRow.project_id == newest.c.project_id)
            & (RecipeRow.name == newest.c.name)
            & (RecipeRow.version == newest.c.version),
        )
        .order_by(RecipeRow.name)
        .limit(limit)
    )
    if after is not None:
        query = query.where(RecipeRow.name > after)
    return list((await session.execute(query)).scalars())
