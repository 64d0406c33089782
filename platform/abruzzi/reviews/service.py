"""Reviews in Postgres. A row has one at most: the last word counts, and the audit log keeps who spoke when."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.dataset import ReviewIn, ReviewOut, Verdict
from abruzzi.reviews.models import ReviewRow


async def put(
    session: AsyncSession, project_id: str, artifact_digest: str, review: ReviewIn, *, by: str, now: datetime
) -> ReviewOut:
    """What stands now. Saying the same again changes nothing, not even who said it first."""
    key = {"project_id": project_id, "artifact_digest": artifact_digest, "row_id": review.row_id}
    said = {"verdict": review.verdict.value, "note": review.note, "by": by, "at": now}
    changed = (ReviewRow.verdict != review.verdict.value) | (ReviewRow.note != review.note)
    await session.execute(
        insert(ReviewRow)
        .values(**key, **said)
        .on_conflict_do_update(index_elements=list(key), set_=said, where=changed)
    )
    return _out((await session.execute(select(ReviewRow).filter_by(**key))).scalar_one())


async def take_back(session: AsyncSession, project_id: str, artifact_digest: str, row_id: str) -> None:
    """Nothing happens where there is none."""
    await session.execute(
        delete(ReviewRow).filter_by(project_id=project_id, artifact_digest=artifact_digest, row_id=row_id)
    )


async def read(
    session: AsyncSession,
    project_id: str,
    artifact_digest: str,
    *,
    after: str = "",
    limit: int | None = None,
    row_ids: Collection[str] | None = None,
    verdict: Verdict | None = None,
) -> list[ReviewOut]:
    """In the order of `row_id`, after one of them."""
    query = select(ReviewRow).filter_by(project_id=project_id, artifact_digest=artifact_digest)
    if row_ids is not None:
        query = query.where(ReviewRow.row_id.in_(row_ids))
    if verdict is not None:
        query = query.where(ReviewRow.verdict == verdict.value)
    query = query.where(ReviewRow.row_id > after).order_by(ReviewRow.row_id).limit(limit)
    return [_out(row) for row in (await session.execute(query)).scalars()]


async def counts(session: AsyncSession, project_id: str, artifact_digest: str) -> dict[Verdict, int]:
    query = (
        select(ReviewRow.verdict, func.count())
        .filter_by(project_id=project_id, artifact_digest=artifact_digest)
        .group_by(ReviewRow.verdict)
    )
    found = {verdict: count for verdict, count in (await session.execute(query)).all()}
    return {verdict: found.get(verdict.value, 0) for verdict in Verdict}


def _out(row: ReviewRow) -> ReviewOut:
    return ReviewOut(row_id=row.row_id, verdict=Verdict(row.verdict), note=row.note, by=row.by, at=row.at)
