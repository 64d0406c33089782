"""Transport on one machine: a ring of equal buffers in POSIX shared memory, which the owner of a bucket writes and all readers read at once.

Synchronised by the group's sockets: `written` from the owner, `read` from each reader; no lock lies in the memory, so a member that is killed leaves
none locked, and it is known at once. The file has no name any more once all have mapped it, so a crash leaves nothing behind.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from abruzzi_jobs.rl.weights.group import Group
from abruzzi_jobs.rl.weights.plan import Bucket
from abruzzi_jobs.rl.weights.registered import slice_of
from abruzzi_jobs.rl.weights.schedule import BUFFERS, Pipeline
from abruzzi_jobs.rl.weights.transport import Traffic

_FOLDER = Path("/dev/shm")


class SharedMemory:
    """Three equal buffers for the group. Where /dev/shm is too small `open` says so."""

    name = "shared memory"
    pipeline: Pipeline = "direct"

    def __init__(self) -> None:
        self._ring: list[Tensor] = []
        self._opened = 0

    def open(self, group: Group, bucket_bytes: int) -> None:
        self.close()
        self._group = group
        self._opened += 1
        size = BUFFERS * bucket_bytes
        if group.rank == 0:
            path = _create(size)
            try:
                group.tell("ring", self._opened, path=str(path))
                memory = _map(path, size)
                group.expect("mapped", self._opened)
            finally:
                path.unlink(missing_ok=True)
        else:
            memory = _map(Path(group.expect("ring", self._opened, [0])[0]["path"]), size)
            group.tell("mapped", self._opened, [0])
        whole = torch.frombuffer(memory, dtype=torch.uint8)
        self._ring = list(whole.split(bucket_bytes))

    def start(self, traffic: Traffic) -> None:
        """All buffers are free: an update ends only when every reader has read the last bucket."""
        self._traffic = traffic

    def copy_in(self, buckets: Sequence[Bucket]) -> None: ...

    def begin(self, bucket: Bucket) -> None:
        if bucket.owner != self._group.rank:
            return
        if bucket.index >= BUFFERS:
            self._group.expect("read", bucket.index - BUFFERS, self._traffic.readers)
        self._traffic.source.pack(self._traffic.plan, bucket, self._ring[bucket.index % BUFFERS])
        self._group.tell("written", bucket.index, sorted(self._traffic.readers))

    def end(self, bucket: Bucket) -> list[Tensor]:
        if self._group.rank not in self._traffic.readers:
            return []
        if bucket.owner != self._group.rank:
            self._group.expect("written", bucket.index, [bucket.owner])
        return [slice_of(self._ring[bucket.index % BUFFERS], piece) for piece in bucket.pieces]

    def release(self, bucket: Bucket) -> None:
        """Tells who writes into this buffer next."""
        buckets = self._traffic.plan.buckets
        if self._group.rank in self._traffic.readers and bucket.index + BUFFERS < len(buckets):
            self._group.tell("read", bucket.index, [buckets[bucket.index + BUFFERS].owner])

    def abort(self) -> None:
        """Nothing blocks here but waits of the group, which end by themselves."""

    def close(self) -> None:
        self._ring = []


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
