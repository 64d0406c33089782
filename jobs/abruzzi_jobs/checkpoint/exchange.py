"""A checkpoint's files to the ranks that need them: each file has been read by one rank, and every other one comes to the rows that it takes.

Ranks of the reader's node copy them from its memory. To the others, what all of them take goes out as one broadcast (data-parallel ranks, the step's number),
the rest from its reader to its owner; what owners then hold for others is broadcast in their own groups (`WholeOptimizer.taken`). So a rank's network carries
its own state, not the whole checkpoint's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from abruzzi_jobs.checkpoint.arrival import Arrived
from abruzzi_jobs.checkpoint.tensor_file import Stored, is_of_kind, read_header
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.distributed.mapped import Handle, open_elsewhere, processes_here
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
    """Rows that a rank has, and others take who do not see its memory."""

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
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Told:
    """By one rank to all."""

    headers: _Headers
    needs: list[_Need]
    here: str
    """Where its handles mean something."""
    handles: dict[str, Handle]


def distribute(files: Mapping[str, Arrived], kind: str, targets: Sequence[Part], ranks: Ranks) -> None:
    """Fill this rank's `targets`, in place, from `files` (those that this rank has read) of all ranks. A collective.

    Raises ValueError, on all ranks alike, where a file is none or what it holds is not what they take.
    """
    own = {name: file.content for name, file in files.items() if is_of_kind(name, kind)}
    needs = [_Need(part.name, part.first, part.last, part.whole_shape) for part in targets]
    handles = {name: file.handle for name, file in files.items() if name in own and file.handle is not None}
    told = _of_all(_Told(_headers(own), needs, processes_here(), handles), ranks)
    stored = [(rank, file, entry) for rank, one in enumerate(told) for file, entry in _entries(one.headers)]
    check(
        {entry.name: shape for entry, shape in _whole([entry for _, _, entry in stored])},
        {need.name: need.shape for one in told for need in one.needs},
    )
    seen = {**own, **_mapped(stored, needs, told, ranks)}
    sees = _of_all(frozenset(seen), ranks)  # after which a reader may forget its files: whoever can has mapped them
    by_name: dict[str, list[tuple[int, _Need]]] = {}
    for rank, one in enumerate(told):
        for need in one.needs:
            by_name.setdefault(need.name, []).append((rank, need))
    messages = []
    for source, file, entry in stored:
        far = [(rank, need) for rank, need in by_name[entry.name] if file not in sees[rank]]
        messages += _messages(source, file, entry, far)
    places = {part.name: part for part in targets}
    for window in _windows(messages):
        _exchange(window, own, places, ranks)
    for _, file, entry in stored:
        if file in seen and entry.name in places:
            _copy(entry, seen[file], places[entry.name])


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


def _mapped(
    stored: Sequence[tuple[int, str, Stored]], needs: Sequence[_Need], told: Sequence[_Told], ranks: Ranks
) -> dict[str, Tensor]:
    """Files of other ranks that this one takes something of, where it can see them."""
    wanted = {need.name: need for need in needs}
    here, found = told[ranks.rank].here, {}
    for source, file, entry in stored:
        need, handle = wanted.get(entry.name), told[source].handles.get(file)
        if source == ranks.rank or told[source].here != here or file in found or need is None or handle is None:
            continue
        if (
            max(entry.first, need.first) < min(entry.last, need.last)
            and (content := open_elsewhere(handle)) is not None
        ):
            found[file] = content
    return found


@torch.no_grad()
def _copy(stored: Stored, content: Tensor, part: Part) -> None:
    """The rows that the file and the part have in common."""
    first, last = max(stored.first, part.first), min(stored.last, part.last)
    if first < last:
        rows = stored.of(content)
        if rows.ndim:
            part.tensor[first - part.first : last - part.first].copy_(rows[first - stored.first : last - stored.first])
        else:
            part.tensor.copy_(rows)


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
        is_source = message.source == ranks.rank
        if is_source:
            rows = _rows(message.stored.of(files[message.file]), message.stored.first, message).to(ranks.device)
        elif ranks.rank in message.takers:
            rows = _rows(places[message.stored.name].tensor, places[message.stored.name].first, message)
            if not _can_be_received(rows, message, ranks.device):
                rows = torch.empty(message.shape, dtype=message.stored.dtype, device=ranks.device)
                came.append((message, rows))
        else:
            continue
        if len(message.takers) == ranks.world_size - 1:
            broadcasts.append((message, rows))
        elif is_source:
            operations += [dist.P2POp(dist.isend, rows, rank) for rank in message.takers]
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


def _of_all(mine: T, ranks: Ranks) -> list[T]:
    if ranks.world_size == 1:
        return [mine]
    found = [mine] * ranks.world_size
    dist.all_gather_object(found, mine)
    return found
