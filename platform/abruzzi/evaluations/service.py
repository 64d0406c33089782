"""Evaluations in Postgres: taken from a report when it is recorded, and read for leaderboards and gates."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.errors import NotFound
from abruzzi.contracts.evaluation import EvaluationOut, SuiteSummary
from abruzzi.evaluations.models import EvaluationRow
from abruzzi.kit.ids import new_id

MOST_SUITES = 256
"""Of one report."""

logger = logging.getLogger("abruzzi.evaluations")


async def record(session: AsyncSession, artifact_id: str, manifest: Manifest) -> int:
    """The suites that a report's manifest tells. A stage wrote it, so what is no summary is passed over. Returns how many were new."""
    told, target = manifest.meta.get("suites"), manifest.meta.get("target")
    if not isinstance(told, list) or not isinstance(target, dict):
        return 0
    new = 0
    for found in told[:MOST_SUITES]:
        try:
            summary = SuiteSummary.model_validate(found)
        except ValidationError as error:
            logger.warning("%s: no summary of a suite (%s)", artifact_id, error.errors()[0]["msg"])
            continue
        row = {
            "id": new_id(),
            "project_id": manifest.project_id,
            "run_id": manifest.run_id,
            "stage_id": manifest.stage_id,
            "artifact_id": artifact_id,
            "suite": summary.suite,
            "target": target_key(target),
            "target_detail": {key: value for key, value in target.items() if isinstance(value, str | int | None)},
            "score": summary.score.value if summary.score else None,
            "items": summary.items,
            "summary": summary.model_dump(mode="json"),
            "created_at": manifest.created_at,
        }
        inserted = await session.execute(
            insert(EvaluationRow).values(**row).on_conflict_do_nothing().returning(EvaluationRow.id)
        )
        new += inserted.scalar_one_or_none() is not None
    return new


def target_key(target: dict[str, Any]) -> str:
    """A checkpoint's digest; of others kind and model."""
    return str(target.get("digest") or f"{target.get('kind')}:{target.get('model') or target.get('endpoint')}")[:300]


async def get(session: AsyncSession, evaluation_id: str) -> EvaluationOut:
    """Raises NotFound."""
    row = await session.get(EvaluationRow, evaluation_id)
    if row is None:
        raise NotFound("evaluation", evaluation_id, hint="`abruzzi evaluations list` shows them.")
    return _out(row)


async def list_evaluations(
    session: AsyncSession,
    *,
    suite: str | None = None,
    target: str | None = None,
    run_id: str | None = None,
    after: tuple[datetime, str] | None = None,
    limit: int = 100,
) -> list[EvaluationOut]:
    """Newest first, after the (created_at, id) of the last one seen. `suite`: with or without its version."""
    query = select(EvaluationRow).order_by(EvaluationRow.created_at.desc(), EvaluationRow.id.desc()).limit(limit)
    if suite:
        query = query.where(
            EvaluationRow.suite == suite
            if "@" in suite
            else EvaluationRow.suite.startswith(f"{suite}@", autoescape=True)
        )
    if target:
        query = query.where(EvaluationRow.target == target)
    if run_id:
        query = query.where(EvaluationRow.run_id == run_id)
    if after:
        query = query.where(tuple_(EvaluationRow.created_at, EvaluationRow.id) < after)
    return [_out(row) for row in (await session.execute(query)).scalars()]


def _out(row: EvaluationRow) -> EvaluationOut:
    return EvaluationOut(
        id=row.id,
        project_id=row.project_id,
        run_id=row.run_id,
        stage_id=row.stage_id,
        artifact_id=row.artifact_id,
        suite=row.suite,
        target=row.target,
        target_detail=row.target_detail,
        summary=SuiteSummary.model_validate(row.summary),
        created_at=row.created_at,
    )
