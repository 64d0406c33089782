"""Transport on one machine. Readers copy from where the owner has its tensors, if those lie in memory that others can map (segment.py: a registered copy,
or a module after `share_memory`). For all else there is a ring of equal buffers in POSIX shared memory, which the owner of a bucket writes and all readers
read at once; writing it costs more than a memory copy, for its lines go back and forth between the processors' caches.

Synchronised by the group's sockets: for the ring `written` from the owner, `read` from each reader; no lock lies in the memory, so a member that is killed
leaves none locked, and it is known at once. The ring's file has no name any more once all have mapped it, so a crash leaves nothing behind.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from abruzzi_jobs.distributed.mapped import Handle, open_elsewhere
from abruzzi_jobs.rl.weights.group import Group
from abruzzi_jobs.rl.weights.mesh import Message
from abruzzi_jobs.rl.weights.plan import Bucket
from abruzzi_jobs.rl.weights.registered import slice_of
from abruzzi_jobs.rl.weights.schedule import BUFFERS, Pipeline
from abruzzi_jobs.rl.weights.segment import Segment, segment_of
from abruzzi_jobs.rl.weights.transport import Traffic

_FOLDER = Path("/dev/shm")


class SharedMemory:
    """Where /dev/shm has no room for a ring of three buckets, and one is needed, `start` says so."""

    name = "shared memory"
    pipeline: Pipeline = "direct"

    def __init__(self) -> None:
        self._ring: list[Tensor] = []
        self._started = self._rings = 0
        self._elsewhere: dict[tuple[int, int], Tensor] = {}
        """Mapped segments of others, by (rank, number)."""
        self._flats: dict[int, Tensor] = {}
        """Others' parameters by their index in the plan, uint8 [bytes], where they can be read in place."""

    def open(self, group: Group, bucket_bytes: int) -> None:
        self.close()
        self._group, self._bucket_bytes = group, bucket_bytes

    def start(self, traffic: Traffic) -> None:
        """All buffers of the ring are free: an update ends only when every reader has read the last bucket."""
        self._traffic = traffic
        self._started += 1
        self._ring_readers = self._meet(traffic)
        self._ringed = [b.index for b in traffic.plan.buckets if self._ring_readers.get(b.owner)]
        """The buckets that go through the ring, in order."""
        self._turns = {index: turn for turn, index in enumerate(self._ringed)}
        if self._ringed and not self._ring:
            self._ring = list(self._open_ring().split(self._bucket_bytes))

    def copy_in(self, buckets: Sequence[Bucket]) -> None: ...

    def begin(self, bucket: Bucket) -> None:
        readers = self._ring_readers.get(bucket.owner)
        if bucket.owner != self._group.rank or not readers:
            return
        turn = self._turns[bucket.index]
        if turn >= BUFFERS:
            before = self._traffic.plan.buckets[self._ringed[turn - BUFFERS]]
            self._group.expect("read", before.index, self._ring_readers[before.owner])
        self._traffic.source.pack(self._traffic.plan, bucket, self._ring[turn % BUFFERS])
        self._group.tell("written", bucket.index, sorted(readers))

    def end(self, bucket: Bucket) -> list[Tensor]:
        rank = self._group.rank
        if rank not in self._traffic.readers:
            return []
        if bucket.owner == rank:
            return self._traffic.source.pieces(self._traffic.plan, bucket)
        if rank in self._ring_readers.get(bucket.owner, ()):
            self._group.expect("written", bucket.index, [bucket.owner])
            buffer_N = self._ring[self._turns[bucket.index] % BUFFERS]
            return [slice_of(buffer_N, piece) for piece in bucket.pieces]
        self._group.listen(0.0)
        self._group.check([bucket.owner])
        return [self._flats[piece.parameter][piece.start : piece.stop] for piece in bucket.pieces]

    def stays(self, bucket: Bucket) -> bool:
        return bucket.index not in self._turns

    def release(self, bucket: Bucket) -> None:
        """Tells who writes into this buffer of the ring next."""
        if self._group.rank in self._ring_readers.get(bucket.owner, ()):
            following = self._turns[bucket.index] + BUFFERS
            if following < len(self._ringed):
                self._group.tell("read", bucket.index, [self._traffic.plan.buckets[self._ringed[following]].owner])

    def abort(self) -> None:
        """Nothing blocks here but waits of the group, which end by themselves."""

    def close(self) -> None:
        self._ring, self._elsewhere, self._flats = [], {}, {}

    def _meet(self, traffic: Traffic) -> dict[int, frozenset[int]]:
        """By owner, the readers that cannot read its memory: the ring is for them."""
        group, owners, number = self._group, traffic.plan.owners, self._started
        if group.rank in owners:
            group.tell("places", number, sorted(traffic.readers), **_told(traffic, group.rank))
        unreached: dict[int, list[int]] = {}
        if group.rank in traffic.readers:
            told = group.expect("places", number, owners)
            unreached[group.rank] = self._map(traffic, told)
            group.tell("reached", number, unreached=unreached[group.rank])
        answers = group.expect("reached", number, traffic.readers)
        unreached |= {rank: answer["unreached"] for rank, answer in answers.items()}
        return {owner: frozenset(rank for rank, missing in unreached.items() if owner in missing) for owner in owners}

    def _map(self, traffic: Traffic, told: dict[int, Message]) -> list[int]:
        """The owners whose memory cannot be read from here; the others' parameters are in `_flats`."""
        before, self._elsewhere, self._flats = self._elsewhere, {}, {}
        unreached = []
        for rank, message in told.items():
            handles = [Handle(**handle) for handle in message["segments"]]
            for handle in handles:
                known = before.get((rank, handle.number))
                found = open_elsewhere(handle) if known is None else known
                if found is not None:
                    self._elsewhere[rank, handle.number] = found
            if message["places"] is None or any((rank, handle.number) not in self._elsewhere for handle in handles):
                unreached.append(rank)
                continue
            own = (index for index, parameter in enumerate(traffic.plan.parameters) if parameter.owner == rank)
            for index, place in zip(own, message["places"], strict=True):
                nbytes = traffic.plan.parameters[index].nbytes
                whole_N = self._elsewhere[rank, place[0]] if nbytes else torch.empty(0, dtype=torch.uint8)
                self._flats[index] = whole_N[place[1] : place[1] + nbytes]
        return unreached

    def _open_ring(self) -> Tensor:
        """All members together."""
        group, size = self._group, BUFFERS * self._bucket_bytes
        self._rings += 1
        if group.rank == 0:
            path = _create(size)
            try:
                group.tell("ring", self._rings, path=str(path))
                memory = _map(path, size)
                group.expect("mapped", self._rings)
            finally:
                path.unlink(missing_ok=True)
        else:
            memory = _map(Path(group.expect("ring", self._rings, [0])[0]["path"]), size)
            group.tell("mapped", self._rings, [0])
        return torch.frombuffer(memory, dtype=torch.uint8)


def _told(traffic: Traffic, rank: int) -> Message:
    """Where this member's parameters lie, in the plan's order: (segment, offset) each."""
    segments: dict[int, Segment] = {}
    places: list[tuple[int, int]] = []
    for parameter in traffic.plan.parameters:
        if parameter.owner != rank:
            continue
        flat_N = traffic.source.flat[parameter.name]
        if not flat_N.nbytes:
            places.append((0, 0))  # lies nowhere
            continue
        if (segment := segment_of(flat_N)) is None:
            return {"segments": [], "places": None}
        segments[segment.handle.number] = segment
        places.append((segment.handle.number, flat_N.data_ptr() - segment.first))
    return {"segments": [segment.handle.to_json() for segment in segments.values()], "places": places}


def _create(size: int) -> Path:
    folder = _FOLDER if _FOLDER.is_dir() else Path(tempfile.gettempdir())
    descriptor, path = tempfile.mkstemp(prefix="abruzzi-weights-", dir=folder)
    try:
        os.posix_fallocate(descriptor, 0, size)  # a full /dev/shm is an error here, not a SIGBUS at the first write
    except OSError as error:
        os.unlink(path)
        raise OSError(
            error.errno,
            f"{folder} has no room for a ring of {size} bytes; lower bucket_bytes, or give the container more shared memory",
        ) from error
    finally:
        os.close(descriptor)
    return Path(path)


def _map(path: Path, size: int) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), size)
