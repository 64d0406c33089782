"""Logs: chunks in the object store, an index in Postgres. They outlive processes and pods. Their text is data and never interpreted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from abruzzi.contracts.errors import Conflict, NotFound
from abruzzi.contracts.resources import LogLine, LogPage
from abruzzi.contracts.states import AttemptState
from abruzzi.events import service as events
from abruzzi.logs.models import LogChunkRow
from abruzzi.runs.models import AttemptRow
from abruzzi.store import ObjectStore

_SMALL_CHUNK_BYTES = 256 << 10
"""A chunk below this grows with the next append, so that a slow log is not a thousand tiny objects."""
_PAGE_BYTES = 1 << 20
_SEARCH_BYTES = 16 << 20
_MAX_LINE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Appended:
    end_offset: int
    replaced_key: str | None
    """An object that the commit makes superfluous; the caller deletes it afterwards."""


async def append(
    session: AsyncSession, objects: ObjectStore, attempt: AttemptRow, rank: int, offset: int, data: bytes
) -> Appended:
    """Bytes at `offset` of a rank's log. What is known already is skipped. Raises Conflict `log_gap` with `expected_offset`."""
    await session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 2))"), {"key": f"{attempt.id}/{rank}"}
    )
    last = (
        await session.execute(
            select(LogChunkRow)
            .where(LogChunkRow.attempt_id == attempt.id, LogChunkRow.rank == rank)
            .order_by(LogChunkRow.start_offset.desc())
            .limit(1)
        )
    ).scalar_one_or_none()
    end = last.end_offset if last else 0
    if offset > end:
        raise Conflict(
            f"Bytes {end} to {offset} are missing.",
            code="log_gap",
            hint=f"Send again from offset {end}.",
            expected_offset=end,
        )
    fresh = data[end - offset :]
    if not fresh:
        return Appended(end, None)
    replaced = None
    start = end
    if last is not None and last.end_offset - last.start_offset < _SMALL_CHUNK_BYTES:
        fresh = await asyncio.to_thread(objects.get, last.object_key) + fresh
        start, replaced = last.start_offset, last.object_key
    stop = start + len(fresh)
    key = f"projects/{attempt.project_id}/runs/{attempt.run_id}/{attempt.stage_id}/logs/{attempt.number}/{rank}/{start:015d}-{stop:015d}.log"
    await asyncio.to_thread(objects.put, key, fresh)
    if replaced is not None and last is not None:
        last.end_offset, last.object_key = stop, key
    else:
        session.add(
            LogChunkRow(
                attempt_id=attempt.id,
                rank=rank,
                start_offset=start,
                end_offset=stop,
                object_key=key,
                project_id=attempt.project_id,
            )
        )
    events.ring(session, events.CHANNEL_EVENTS, attempt.run_id)
    return Appended(stop, replaced)


async def read(
    session: AsyncSession,
    objects: ObjectStore,
    attempt: AttemptRow,
    rank: int,
    *,
    offset: int | None = None,
    limit: int = 1000,
    tail: int | None = None,
    before: int | None = None,
    q: str | None = None,
) -> LogPage:
    """Whole lines from `offset` on, or the last `tail`, or the last `limit` that begin before byte `before`.

    With `q` only those that hold the text, in whatever case.
    """
    end = await _end(session, attempt.id, rank)
    complete = AttemptState(attempt.state).is_terminal and attempt.workload_removed
    if offset is None and (tail is not None or before is not None):
        stop = end if before is None else min(before, end)
        count = limit if tail is None else tail
        lines, after = await _last_lines(session, objects, attempt.id, rank, stop, end, count, complete, q)
    else:
        lines, after = await _lines(session, objects, attempt.id, rank, offset or 0, limit, complete, q)
    return LogPage(attempt_id=attempt.id, rank=rank, lines=lines, next_offset=after, end_offset=end, complete=complete)


async def _end(session: AsyncSession, attempt_id: str, rank: int) -> int:
    query = select(func.max(LogChunkRow.end_offset)).where(
        LogChunkRow.attempt_id == attempt_id, LogChunkRow.rank == rank
    )
    return (await session.execute(query)).scalar() or 0


async def _bytes(
    session: AsyncSession, objects: ObjectStore, attempt_id: str, rank: int, offset: int, size: int
) -> bytes:
    """An append replaces the last small chunk by a larger one and removes the object that it replaced: who has read the index just before
    finds it gone, and looks again. What is gone twice under one name is lost, and said so."""
    query = (
        select(LogChunkRow.start_offset, LogChunkRow.object_key)
        .where(
            LogChunkRow.attempt_id == attempt_id,
            LogChunkRow.rank == rank,
            LogChunkRow.end_offset > offset,
            LogChunkRow.start_offset < offset + size,
        )
        .order_by(LogChunkRow.start_offset)
    )
    gone: set[str] = set()
    last = ""
    while True:
        parts: list[bytes] = []
        try:
            for start, key in (await session.execute(query)).all():
                last = key
                data = await asyncio.to_thread(objects.get, key)
                parts.append(data[max(0, offset - start) : offset + size - start])
            return b"".join(parts)
        except NotFound:
            if last in gone:
                raise
            gone.add(last)


async def _lines(
    session: AsyncSession,
    objects: ObjectStore,
    attempt_id: str,
    rank: int,
    offset: int,
    limit: int,
    complete: bool,
    q: str | None,
) -> tuple[list[LogLine], int]:
    found: list[LogLine] = []
    read_bytes = 0
    while len(found) < limit and read_bytes < (_SEARCH_BYTES if q else _PAGE_BYTES):
        data = await _bytes(session, objects, attempt_id, rank, offset, _PAGE_BYTES)
        if not data:
            break
        lines, used = split_lines(data, offset, flush=complete and len(data) < _PAGE_BYTES)
        if not used:
            break
        for line in lines:
            if q is None or _holds(line, q):
                found.append(line)
                if len(found) == limit:
                    return found, _after(line, lines, offset + used)
        offset, read_bytes = offset + used, read_bytes + used
    return found, offset


async def _last_lines(
    session: AsyncSession,
    objects: ObjectStore,
    attempt_id: str,
    rank: int,
    stop: int,
    end: int,
    count: int,
    complete: bool,
    q: str | None,
) -> tuple[list[LogLine], int]:
    """The last `count` lines that begin before byte `stop`; the last of them whole. And where the line after them begins."""
    start = max(0, stop - _PAGE_BYTES)
    reach = min(end, stop + _MAX_LINE_BYTES)
    while True:
        data = await _bytes(session, objects, attempt_id, rank, start, reach - start)
        skipped = data.find(b"\n") + 1 if start > 0 else 0
        lines, used = split_lines(data[skipped:], start + skipped, flush=complete and reach == end)
        after = next((line.offset for line in lines if line.offset >= stop), start + skipped + used)
        matching = [line for line in lines if line.offset < stop and (q is None or _holds(line, q))]
        if len(matching) >= count or start == 0 or stop - start >= _SEARCH_BYTES:
            return matching[-count:], after
        start = max(0, start - (stop - start))


def _holds(line: LogLine, q: str) -> bool:
    return q.casefold() in line.text.casefold()


def split_lines(data: bytes, offset: int, *, flush: bool) -> tuple[list[LogLine], int]:
    """(lines, bytes used). An unfinished last line stays for the next time unless `flush`. Of a line that was rewritten with carriage returns the last state is kept."""
    lines: list[LogLine] = []
    position = 0
    while position < len(data):
        newline = data.find(b"\n", position)
        if newline < 0:
            if not flush and len(data) - position < _MAX_LINE_BYTES:
                break
            newline = len(data)
        raw = data[position:newline].rstrip(b"\r")
        visible = raw.rsplit(b"\r", 1)[-1][:_MAX_LINE_BYTES]
        lines.append(LogLine(offset=offset + position, text=visible.decode(errors="replace")))
        position = min(newline + 1, len(data))
    return lines, position


def _after(line: LogLine, lines: list[LogLine], end: int) -> int:
    """Offset of the line after `line`."""
    position = lines.index(line)
    return lines[position + 1].offset if position + 1 < len(lines) else end
