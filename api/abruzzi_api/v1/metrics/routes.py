"""Metrics: curves."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from abruzzi.contracts.metric import MetricKey
from abruzzi.contracts.resources import Resource, SeriesOut
from abruzzi.metrics import service as metrics
from abruzzi.runs import query
from abruzzi_api.work import ReadWork, Router

router = Router(prefix="/metrics", tags=["metrics"])
Step = Annotated[int | None, Query(ge=0, le=2**60)]


class SeriesList(Resource):
    items: list[SeriesOut]


@router.get("", operation_id="metrics_list")
async def list_series(
    work: ReadWork,
    run: Annotated[str, Query(max_length=16)],
    key: Annotated[list[MetricKey], Query(min_length=1, max_length=200)],
    stage: Annotated[str | None, Query(max_length=16)] = None,
    max_points: Annotated[int, Query(ge=10, le=100_000, description="Beyond it, buckets with exact extrema")] = 1000,
    from_step: Step = None,
    to_step: Step = None,
) -> SeriesList:
    """One curve an attempt and key."""
    await query.row(work.session, run)
    found = await metrics.series(
        work.session, run, key, stage_id=stage, max_points=max_points, from_step=from_step, to_step=to_step
    )
    return SeriesList(items=found)
