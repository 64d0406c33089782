"""A checkpoint's files to the ranks that need them: each file has been read by one rank, which gives every other one the rows that it takes.

What all ranks take goes out as one broadcast (data-parallel ranks, the step's number), the rest from its reader to its owner; what owners then hold for
others is broadcast in their own groups (`WholeOptimizer.taken`). So a rank's network carries its own state, not the whole checkpoint's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from abruzzi_jobs.checkpoint.tensor_file import Stored, is_of_kind, read_header
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.distributed.whole import Part

_WINDOW_BYTES = 256 << 20
"""Under way at a time."""


@dataclass(frozen=True, slots=True)
class _Need:
    """A part that a rank takes, without its tensor."""

    name: str
    first: int
    last: int
    shape: tuple[int, ...]
    """Of the whole."""


@dataclass(frozen=True, slots=True)
class _Message:
    """Rows that a rank has and others take."""

    file: str
    stored: Stored
    source: int
    takers: tuple[int, ...]
    first: int
    last: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.last - self.first, *self.stored.shape[1:]) if self.stored.shape else ()

    @property
    def nbytes(self) -> int:
        return torch.Size(self.shape).numel() * self.stored.dtype.itemsize


_Headers = dict[str, list[Stored]] | str
"""Of a rank's files, or why one can't be read."""
_Told = tuple[_Headers, list[_Need]]


def distribute(files: Mapping[str, Tensor], kind: str, targets: Sequence[Part], ranks: Ranks) -> None:
    """Fill this rank's `targets`, in place, from `files` (bytes, those that this rank has read) of all ranks. A collective.

    Raises ValueError, on all ranks alike, where a file is none or what it holds is not what they take.
    """
    own = {name: content for name, content in files.items() if is_of_kind(name, kind)}
    needs = [_Need(part.name, part.first, part.last, part.whole_shape) for part in targets]
    told = _told((_headers(own), needs), ranks)
    stored = [(rank, file, entry) for rank, (headers, _) in enumerate(told) for file, entry in _entries(headers)]
    check(
        {entry.name: shape for entry, shape in _whole([entry for _, _, entry in stored])},
        {need.name: need.shape for _, found in told for need in found},
    )
    by_name: dict[str, list[tuple[int, _Need]]] = {}
    for rank, (_, found) in enumerate(told):
        for need in found:
            by_name.setdefault(need.name, []).append((rank, need))
    messages = [
        message for rank, file, entry in stored for message in _messages(rank, file, entry, by_name[entry.name])
    ]
    places = {part.name: part for part in targets}
    for window in _windows(messages):
        _exchange(window, own, places, ranks)


def check(stored: Mapping[str, tuple[int, ...]], needed: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ValueError where names or whole shapes differ."""
    missing, unknown = sorted(set(needed) - set(stored)), sorted(set(stored) - set(needed))
    if missing or unknown:
        raise ValueError(
            f"missing {', '.join(missing[:3]) or 'nothing'}, unknown {', '.join(unknown[:3]) or 'nothing'}"
        )
    for name, shape in needed.items():
        if stored[name] != shape:
            raise ValueError(f"{name}: shape {stored[name]}, expected {shape}")


def _headers(files: Mapping[str, Tensor]) -> _Headers:
    found = {}
    for name, content in files.items():
        try:
            found[name] = read_header(content)
        except ValueError as error:
            return f"{name}: {error}"
    return found


def _entries(headers: _Headers) -> Iterator[tuple[str, Stored]]:
    if isinstance(headers, str):
        raise ValueError(headers)
    for file, entries in headers.items():
        yield from ((file, entry) for entry in entries)


def _whole(stored: Sequence[Stored]) -> Iterator[tuple[Stored, tuple[int, ...]]]:
    """One of each tensor with the shape of all its rows, which must follow each other."""
    by_name: dict[str, list[Stored]] = {}
    for entry in stored:
        by_name.setdefault(entry.name, []).append(entry)
    for name, entries in by_name.items():
        at = 0
        for entry in sorted(entries, key=lambda entry: entry.first):
            if entry.first != at or (entry.dtype, entry.shape[1:]) != (entries[0].dtype, entries[0].shape[1:]):
                raise ValueError(f"{name}: rows {at} to {entry.first} are in no file, or twice, or of another type")
            at = entry.last
        yield entries[0], ((at, *entries[0].shape[1:]) if entries[0].shape else ())


def _messages(source: int, file: str, stored: Stored, needs: Sequence[tuple[int, _Need]]) -> Iterator[_Message]:
    takers: dict[tuple[int, int], list[int]] = {}
    for rank, need in needs:
        first, last = max(stored.first, need.first), min(stored.last, need.last)
        if first < last:
            takers.setdefault((first, last), []).append(rank)
    for (first, last), found in takers.items():
        yield _Message(file, stored, source, tuple(found), first, last)


def _windows(messages: Sequence[_Message]) -> Iterator[list[_Message]]:
    window: list[_Message] = []
    for message in messages:
        window.append(message)
        if sum(message.nbytes for message in window) >= _WINDOW_BYTES:
            yield window
            window = []
    if window:
        yield window


@torch.no_grad()
def _exchange(
    window: Sequence[_Message], files: Mapping[str, Tensor], places: Mapping[str, Part], ranks: Ranks
) -> None:
    """All ranks go through the same messages in the same order."""
    came: list[tuple[_Message, Tensor]] = []
    operations: list[dist.P2POp] = []
    broadcasts: list[tuple[_Message, Tensor]] = []
    for message in window:
        is_source, takes = message.source == ranks.rank, ranks.rank in message.takers
        others = [rank for rank in message.takers if rank != message.source]
        if is_source:
            rows = _rows(message.stored.of(files[message.file]), message.stored.first, message)
            if takes:
                came.append((message, rows))
            rows = rows.to(ranks.device) if others else rows
        elif takes:
            rows = _rows(places[message.stored.name].tensor, places[message.stored.name].first, message)
            if not _can_be_received(rows, message, ranks.device):
                rows = torch.empty(message.shape, dtype=message.stored.dtype, device=ranks.device)
                came.append((message, rows))
        else:
            continue
        if len(message.takers) == ranks.world_size > 1:
            broadcasts.append((message, rows))
        elif is_source:
            operations += [dist.P2POp(dist.isend, rows, rank) for rank in others]
        else:
            operations.append(dist.P2POp(dist.irecv, rows, message.source))
    for work in dist.batch_isend_irecv(operations) if operations else ():
        work.wait()
    for work in [dist.broadcast(rows, message.source, async_op=True) for message, rows in broadcasts]:
        if work is not None:
            work.wait()
    for message, rows in came:
        part = places[message.stored.name]
        _rows(part.tensor, part.first, message).copy_(rows)


def _can_be_received(rows: Tensor, message: _Message, device: torch.device) -> bool:
    """Where they will stay: other memory would have to be paged in first, and copied after."""
    return rows.dtype == message.stored.dtype and rows.device.type == device.type and rows.is_contiguous()


def _rows(tensor: Tensor, first: int, message: _Message) -> Tensor:
    """Of a tensor that begins at row `first`, those of the message."""
    return tensor[message.first - first : message.last - first] if tensor.ndim else tensor


def _told(mine: _Told, ranks: Ranks) -> list[_Told]:
    if ranks.world_size == 1:
        return [mine]
    found = [mine] * ranks.world_size
    dist.all_gather_object(found, mine)
    return found
