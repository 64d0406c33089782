"""The event log."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Query, Request
from fastapi.responses import StreamingResponse

from abruzzi.contracts.resources import EventOut, Page
from abruzzi.events import service as events
from abruzzi_api.pagination import Cursor, Limit, decode_number, page
from abruzzi_api.streams import event_stream
from abruzzi_api.work import ReadWork, Router

router = Router(prefix="/events", tags=["events"])
RunId = Annotated[str | None, Query(max_length=16)]


@router.get("", operation_id="events_list")
async def list_events(
    work: ReadWork,
    run: RunId = None,
    after: Annotated[int | None, Query(ge=0, le=2**60)] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[EventOut]:
    """In order; never skips one that was committed late."""
    position = decode_number(cursor)
    found = await events.read(
        work.session, after=position if position is not None else after or 0, run_id=run, limit=limit + 1
    )
    return Page[EventOut].model_validate(page(found, limit, lambda e: (e.id,)))


@router.get("/stream", operation_id="events_stream", response_class=StreamingResponse)
async def stream_events(
    work: ReadWork,
    request: Request,
    run: RunId = None,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> StreamingResponse:
    """Server-sent events `event` (EventOut), each once, in order, from Last-Event-ID on (without it: from now on)."""
    return event_stream(request, work.identity, run, last_event_id)
