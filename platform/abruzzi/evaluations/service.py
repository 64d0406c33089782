"""Evaluations in Postgres: taken from a report when it is recorded, and read for leaderboards and gates."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError
from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.errors import NotFound
from abruzzi.contracts.evaluation import EvaluationOut, Figure, Share, SuiteSummary
from abruzzi.evaluations.models import EvaluationRow
from abruzzi.kit.ids import new_id

MOST_SUITES = 256
"""Of one report."""

_MOST_ITEMS = 2**31 - 1
"""What the table holds."""

logger = logging.getLogger("abruzzi.evaluations")


class _Score(Figure):
    value: Share


class _Told(SuiteSummary):
    """As the table takes it."""

    suite: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,39}@[1-9][0-9]{0,3}$")]
    items: Annotated[int, Field(ge=0, le=_MOST_ITEMS)]
    score: _Score | None


async def record(session: AsyncSession, artifact_id: str, manifest: Manifest) -> int:
    """The suites that a report's manifest tells. A stage wrote it, so what is no summary is passed over, and what Postgres does not take is undone
    alone: the report stays. Returns how many were new."""
    told, target = manifest.meta.get("suites"), manifest.meta.get("target")
    if not isinstance(told, list) or not isinstance(target, dict):
        return 0
    new = 0
    for found in told[:MOST_SUITES]:
        try:
            summary = _Told.model_validate(found)
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
        statement = insert(EvaluationRow).values(**row).on_conflict_do_nothing().returning(EvaluationRow.id)
        try:
            async with session.begin_nested():
                inserted = await session.execute(statement)
        except (DataError, IntegrityError) as error:
            logger.warning("%s: %s is not recorded (%s)", artifact_id, summary.suite, error.orig)
            continue
        new += inserted.scalar_one_or_none() is not None
    return new


def target_key(target: dict[str, Any]) -> str:
    """A checkpoint's digest, and how its positions were turned where otherwise than trained; of others kind and model."""
    yarn = f" yarn {target['yarn']}" if target.get("yarn") else ""
    key = target.get("digest") or f"{target.get('kind')}:{target.get('model') or target.get('endpoint')}"
    return f"{key}{yarn}"[:300]


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
    of_run: str | None = None,
    after: tuple[datetime, str] | None = None,
    limit: int = 100,
) -> list[EvaluationOut]:
    """Newest first, after the (created_at, id) of the last one seen. `suite`: with or without its version. `run_id`: that evaluated; `of_run`: whose
    checkpoint was evaluated."""
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
    if of_run:
        query = query.where(EvaluationRow.target_detail["run_id"].astext == of_run)
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
