"""Usage: GPU-hours by cause."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from fastapi import Header, Query, Response

from abruzzi.contracts.usage import By, UsageOut
from abruzzi.usage import service
from abruzzi.usage.csv_text import usage_csv
from abruzzi_api.work import ReadWork, Router

router = Router(prefix="/usage", tags=["usage"])
CSV = "text/csv"


@router.get(
    "",
    operation_id="usage_get",
    response_model=UsageOut,
    responses={200: {"content": {CSV: {"schema": {"type": "string"}}}}},
)
async def get_usage(
    work: ReadWork,
    from_day: Annotated[
        date | None, Query(alias="from", description="First day, UTC; by default 30 days in all")
    ] = None,
    to_day: Annotated[date | None, Query(alias="to", description="Last day, UTC, inclusive; by default today")] = None,
    by: By = By.PROJECT,
    pool: Annotated[str | None, Query(max_length=64, description="Only what was held in a pool")] = None,
    format_: Annotated[
        Literal["json", "csv"] | None, Query(alias="format", description="By default what Accept asks for")
    ] = None,
    accept: Annotated[str | None, Header(max_length=1000)] = None,
) -> Any:
    """Hours held, and where they went: of the caller's project, for the platform's own admins of all. The causes sum to the hours held."""
    await service.see_all_projects(work.session, work.identity)
    found = await service.usage(work.session, from_day=from_day, to_day=to_day, by=by, pool=pool, now=work.clock.now())
    if format_ == "csv" or (format_ is None and CSV in (accept or "")):
        headers = {"Content-Disposition": f'attachment; filename="usage-{found.from_day}-{found.to_day}-{by}.csv"'}
        return Response(usage_csv(found), media_type=CSV, headers=headers)
    return found
