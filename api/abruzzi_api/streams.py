"""Server-sent events. A stream has no transaction of its own between two looks, ends by itself after ten minutes (the browser comes back with
Last-Event-ID), and never skips or repeats an event: readers stay below the oldest open transaction (events/service.py)."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from fastapi import Request
from fastapi.responses import StreamingResponse
from sqlalchemy.exc import SQLAlchemyError

from abruzzi.contracts.errors import NotFound
from abruzzi.events import service as events
from abruzzi.identity.policy import Identity
from abruzzi.kit.db import connect_arguments, transaction
from abruzzi.logs import service as logs
from abruzzi.runs import query

_LIFE_SECONDS = 600.0
_PING_SECONDS = 5.0
"""Silence is told, as an event: a page cannot see comments, and must know a quiet stream from one whose other end is gone."""
_LOOK_SECONDS = 1.0
"""Without a ring: notifications may be lost, and an event may wait for an older transaction to end."""
_SETTLE_SECONDS = 0.2
"""Rings come in bursts: one answer to many."""
_MOVES_BY_ITSELF: dict[str, Any] = {"eta_seconds": True, "detail": {"__all__": {"eta_seconds"}}}
"""Falls from second to second: no news."""
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Bell:
    """One LISTEN connection for the whole process; streams wait for their run's ring."""

    def __init__(self, url: str) -> None:
        self._address = connect_arguments(url)
        self._waiting: dict[str | None, set[asyncio.Event]] = {}

    async def listen(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(**self._address, autocommit=True) as connection:
                    await connection.execute(f"LISTEN {events.CHANNEL_EVENTS}")
                    async for note in connection.notifies():
                        for key in (note.payload, None):
                            for event in self._waiting.get(key, ()):
                                event.set()
            except psycopg.Error:
                await asyncio.sleep(_LOOK_SECONDS)

    @asynccontextmanager
    async def ringing(self, run_id: str | None) -> AsyncIterator[asyncio.Event]:
        event = asyncio.Event()
        self._waiting.setdefault(run_id, set()).add(event)
        try:
            yield event
        finally:
            self._waiting[run_id].discard(event)
            if not self._waiting[run_id]:
                del self._waiting[run_id]


def run_stream(request: Request, identity: Identity, run_id: str, last_event_id: str | None) -> StreamingResponse:
    """`run`, `event`, `metrics` of one run. Without Last-Event-ID it begins with the run as it is."""

    async def produce() -> AsyncIterator[str]:
        state = request.app.state
        position = _position(last_event_id)
        shown = ""
        async for _ in _looks(request, run_id):
            try:
                async with transaction(state.sessions, identity.projects) as session:
                    if position is None:
                        position = await events.last_position(session)
                    happened = await events.read(session, after=position, run_id=run_id)
                    read_to = int(happened[-1].id) if happened else position
                    run = await query.get(session, run_id, now=state.clock.now())
                    # After the state, which comes with its event: that event may have to wait for an older transaction, and the end with it.
                    is_over = run.state.is_terminal and not await events.more_to_come(
                        session, after=read_to, run_id=run_id
                    )
            except NotFound:
                return
            for event in happened:
                position = int(event.id)
                yield _format("event", event.model_dump_json(), event.id)
            current = run.model_dump_json(exclude=_MOVES_BY_ITSELF)
            if current != shown:
                shown = current
                yield _format("run", run.model_dump_json(), str(position))
                yield _format("metrics", json.dumps({"run": run_id}), None)
            if is_over:
                yield _format("end", "{}", str(position))
                return

    return StreamingResponse(_alive(produce()), media_type="text/event-stream", headers=_HEADERS)


def event_stream(
    request: Request, identity: Identity, run_id: str | None, last_event_id: str | None
) -> StreamingResponse:
    """`event`s from a position on, or from now on."""

    async def produce() -> AsyncIterator[str]:
        state = request.app.state
        position = _position(last_event_id)
        async for _ in _looks(request, run_id):
            async with transaction(state.sessions, identity.projects) as session:
                if position is None:
                    position = await events.last_position(session)
                happened = await events.read(session, after=position, run_id=run_id)
            for event in happened:
                position = int(event.id)
                yield _format("event", event.model_dump_json(), event.id)

    return StreamingResponse(_alive(produce()), media_type="text/event-stream", headers=_HEADERS)


def log_stream(request: Request, identity: Identity, attempt_id: str, rank: int, offset: int) -> StreamingResponse:
    """`lines` (LogPage) as they come; the id is the next offset."""

    async def produce() -> AsyncIterator[str]:
        state = request.app.state
        position = offset
        async for _ in _looks(request, attempt_id[:10]):
            while True:
                async with transaction(state.sessions, identity.projects) as session:
                    attempt = await query.attempt_row(session, attempt_id)
                    found = await logs.read(session, state.objects, attempt, rank, offset=position, limit=2000)
                if found.lines:
                    position = found.next_offset
                    yield _format("lines", found.model_dump_json(), str(position))
                if found.complete and found.next_offset >= found.end_offset:
                    yield _format("end", "{}", str(position))
                    return
                if not found.lines:
                    break

    return StreamingResponse(_alive(produce()), media_type="text/event-stream", headers=_HEADERS)


async def _looks(request: Request, run_id: str | None) -> AsyncIterator[None]:
    """At once, then at each ring or second, until the server stops or the stream is old. A client that goes away cancels the stream."""
    state: Any = request.app.state
    ends_at = time.monotonic() + _LIFE_SECONDS
    async with state.bell.ringing(run_id) as ring:
        while time.monotonic() < ends_at and not state.stopping.is_set():
            yield None
            try:
                await asyncio.wait_for(ring.wait(), _LOOK_SECONDS)
                await asyncio.sleep(_SETTLE_SECONDS)
            except TimeoutError:
                pass
            ring.clear()


async def _alive(source: AsyncIterator[str]) -> AsyncIterator[str]:
    """With a `ping` while nothing happens; a database that goes away ends the stream, and the client comes back."""
    yield "retry: 1000\n\n"
    pending: asyncio.Task[str] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(source))
            done, _ = await asyncio.wait({pending}, timeout=_PING_SECONDS)
            if not done:
                yield _format("ping", "{}", None)
                continue
            try:
                yield pending.result()
            except (StopAsyncIteration, SQLAlchemyError, psycopg.Error):
                return
            pending = None
    finally:
        if pending is not None and not pending.done():
            pending.cancel()


def _position(last_event_id: str | None) -> int | None:
    return int(last_event_id) if last_event_id and last_event_id.isascii() and last_event_id.isdigit() else None


def _format(event: str, data: str, event_id: str | None) -> str:
    """`data` is one line of JSON."""
    return f"{f'id: {event_id}{chr(10)}' if event_id is not None else ''}event: {event}\ndata: {data}\n\n"
