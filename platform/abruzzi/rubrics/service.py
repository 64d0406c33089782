"""Rubrics in Postgres. Shipped ones are version 1 of their name in every project; an edit is the next version, whoever reads the one before."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.graph import nearest
from abruzzi.contracts.rubric import SHIPPED_RUBRICS, RubricEdit, RubricSet, RubricSetOut
from abruzzi.rubrics.models import RubricSetRow

SHIPPED = "shipped"


async def newest(session: AsyncSession, project_id: str) -> list[RubricSetOut]:
    """Of each name, in order."""
    query = (
        select(RubricSetRow)
        .filter_by(project_id=project_id)
        .distinct(RubricSetRow.name)
        .order_by(RubricSetRow.name, RubricSetRow.version.desc())
    )
    written = {row.name: _out(row) for row in (await session.execute(query)).scalars()}
    shipped = {name: _shipped(found) for name, found in SHIPPED_RUBRICS.items()}
    return [found for _, found in sorted({**shipped, **written}.items())]


async def get(session: AsyncSession, project_id: str, name: str, version: int | None = None) -> RubricSetOut:
    """The newest where no version is named. Raises AbruzziError `not_found`."""
    query = select(RubricSetRow).filter_by(project_id=project_id, name=name)
    if version is not None:
        query = query.filter_by(version=version)
    row = (await session.execute(query.order_by(RubricSetRow.version.desc()).limit(1))).scalar_one_or_none()
    if row is not None:
        return _out(row)
    shipped = SHIPPED_RUBRICS.get(name)
    if shipped is not None and version in (None, shipped.version):
        return _shipped(shipped)
    known = [found.name for found in await newest(session, project_id)]
    which = f"{name!r}" if version is None else f"{name!r} of version {version}"
    raise AbruzziError("not_found", f"There are no rubrics {which}.", status=404, hint=nearest(name, known))


async def write(
    session: AsyncSession, project_id: str, name: str, edit: RubricEdit, *, by: str, now: datetime
) -> RubricSetOut:
    """The next version; the same rubrics again are the version that there is. Raises AbruzziError `conflict` where somebody was faster."""
    try:
        before = await get(session, project_id, name)
    except AbruzziError as error:
        if error.code != "not_found":
            raise
        before = None
    stands = 0 if before is None else before.version
    if before is not None and before.rubrics == edit.rubrics:
        return before
    made = {
        "project_id": project_id,
        "name": name,
        "version": stands + 1,
        "rubrics": [rubric.model_dump(mode="json") for rubric in edit.rubrics],
        "by": by,
        "at": now,
    }
    if edit.based_on == stands:
        inserted = await session.execute(
            insert(RubricSetRow).values(**made).on_conflict_do_nothing().returning(RubricSetRow.version)
        )
        if inserted.scalar_one_or_none() is not None:
            return RubricSetOut(name=name, version=stands + 1, rubrics=edit.rubrics, by=by, at=now)
    raise AbruzziError(
        "conflict",
        f"The rubrics {name!r} have another version than the {edit.based_on} that this edit was made from.",
        status=409,
        hint="Read the newest ones, and edit those.",
    )


def _shipped(found: RubricSet) -> RubricSetOut:
    return RubricSetOut(name=found.name, version=found.version, rubrics=found.rubrics, by=SHIPPED)


def _out(row: RubricSetRow) -> RubricSetOut:
    return RubricSetOut.model_validate(
        {"name": row.name, "version": row.version, "rubrics": row.rubrics, "by": row.by, "at": row.at}
    )
