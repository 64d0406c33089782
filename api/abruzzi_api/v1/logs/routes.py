"""Logs: pages, tail, search, follow."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Query, Request
from fastapi.responses import StreamingResponse

from abruzzi.contracts.resources import LogPage
from abruzzi.logs import service as logs
from abruzzi.runs import query
from abruzzi_api.streams import log_stream
from abruzzi_api.work import ReadWork, Router

router = Router(prefix="/logs", tags=["logs"])
Attempt = Annotated[str, Query(max_length=32)]
Rank = Annotated[int, Query(ge=0, le=100_000)]
Offset = Annotated[int | None, Query(ge=0, le=2**60)]


@router.get("", operation_id="logs_read")
async def read_log(
    work: ReadWork,
    attempt: Attempt,
    rank: Rank = 0,
    offset: Offset = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    tail: Annotated[int | None, Query(ge=1, le=10_000, description="The last lines")] = None,
    before: Annotated[
        int | None, Query(ge=0, le=2**60, description="The last `limit` lines that begin before this byte")
    ] = None,
    q: Annotated[
        str | None, Query(max_length=200, description="Only lines that hold this text, in whatever case")
    ] = None,
) -> LogPage:
    """Whole lines of one rank."""
    row = await query.attempt_row(work.session, attempt)
    return await logs.read(
        work.session, work.objects, row, rank, offset=offset, limit=limit, tail=tail, before=before, q=q
    )


@router.get("/stream", operation_id="logs_stream", response_class=StreamingResponse)
async def stream_log(
    work: ReadWork,
    request: Request,
    attempt: Attempt,
    rank: Rank = 0,
    offset: Offset = None,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> StreamingResponse:
    """Server-sent events `lines` (LogPage) whose id is the next offset, until the log is complete (`end`)."""
    await query.attempt_row(work.session, attempt)
    start = int(last_event_id) if last_event_id and last_event_id.isascii() and last_event_id.isdigit() else offset or 0
    return log_stream(request, work.identity, attempt, rank, start)
