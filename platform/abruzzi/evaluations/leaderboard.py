"""The leaderboard: of each target and suite the newest evaluation, with tools and without, in one statement."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.evaluation import SuiteSummary
from abruzzi.contracts.leaderboard import LeaderboardCell, LeaderboardOut, LeaderboardRow

MOST_TARGETS = 200
_NEWEST = text(r"""
    WITH newest AS (
      SELECT DISTINCT ON (e.project_id, e.target, e.suite, e.summary->'settings'->>'tools')
        e.id, e.project_id, e.target, e.target_detail, e.suite, e.summary, e.created_at, e.run_id, r.name AS run_name, r.recipe_name
      FROM evaluations e JOIN runs r ON r.id = e.run_id
      WHERE (CAST(:run AS text) IS NULL OR e.run_id = :run OR e.target_detail->>'run_id' = :run)
        AND (CAST(:recipe AS text) IS NULL OR r.recipe_name = :recipe)
        AND (CAST(:q AS text) IS NULL OR strpos(lower(concat_ws(' ', r.name, e.target, e.target_detail->>'model', e.target_detail->>'name')), lower(:q)) > 0)
      ORDER BY e.project_id, e.target, e.suite, e.summary->'settings'->>'tools', e.created_at DESC, e.id DESC
    ), ranked AS (
      SELECT *, max(created_at) OVER (PARTITION BY project_id, target) AS evaluated_at FROM newest
    ), numbered AS (
      SELECT *, dense_rank() OVER (ORDER BY evaluated_at DESC, project_id, target) AS place FROM ranked
    )
    SELECT *, (SELECT max(place) FROM numbered) AS targets FROM numbered WHERE place <= :most ORDER BY place, suite, created_at DESC, id DESC
""")


async def leaderboard(
    session: AsyncSession,
    *,
    run_id: str | None = None,
    recipe: str | None = None,
    q: str | None = None,
    most: int = MOST_TARGETS,
) -> LeaderboardOut:
    """`run_id`: evaluated by it, or made by it. `q`: part of the run's name, of the target's, or of the model's."""
    found = (await session.execute(_NEWEST, {"run": run_id, "recipe": recipe, "q": q or None, "most": most})).all()
    targets: dict[int, list[Any]] = defaultdict(list)
    for row in found:
        targets[row.place].append(row)
    return LeaderboardOut(
        suites=sorted({row.suite for row in found}),
        rows=[_row(rows) for rows in targets.values()],
        left_out=max(0, found[0].targets - most) if found else 0,
    )


def _row(rows: list[Any]) -> LeaderboardRow:
    newest = max(rows, key=lambda row: (row.created_at, row.id))
    return LeaderboardRow(
        target=newest.target,
        target_detail=newest.target_detail,
        run_id=newest.run_id,
        run_name=newest.run_name,
        recipe_name=newest.recipe_name,
        evaluated_at=newest.created_at,
        cells=[_cell(row) for row in rows],
    )


def _cell(row: Any) -> LeaderboardCell:
    summary = SuiteSummary.model_validate(row.summary)
    return LeaderboardCell(
        evaluation_id=row.id,
        suite=row.suite,
        tools=summary.settings.tools,
        score=summary.score,
        items=summary.items,
        missing=summary.missing,
        truncation_rate=summary.truncation_rate,
        contaminated=summary.contaminated,
        clean_score=summary.clean_score,
        subtasks=summary.subtasks,
        created_at=row.created_at,
    )
