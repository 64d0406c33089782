"""Memory for a file that comes from the store: of this rank alone, or where the ranks of its node can map it, so that what one has read none has to be sent.

Shared memory is written piece by piece out of a small buffer: it takes each page with its content, where a mapping would clear it first, at a fault each.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import weakref
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from abruzzi_jobs.distributed.mapped import IS_POSSIBLE, Handle

_PIECE_BYTES = 1 << 20
"""Small enough to be hashed from the processor's cache."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A file's bytes, uint8."""

    content: Tensor
    handle: Handle | None = None
    """Of the memory, where others can map it."""


def receive(stream: BinaryIO, size_bytes: int, *, shared: bool) -> tuple[Arrived, str] | None:
    """The bytes of a stream and their SHA-256; None where it has more or fewer than `size_bytes`. `shared`: where that is possible."""
    memory = _Shared(size_bytes) if shared and IS_POSSIBLE and size_bytes else _Own(size_bytes)
    digest, at = hashlib.sha256(), 0
    while at < size_bytes and (piece := memory.take(stream, at, min(_PIECE_BYTES, size_bytes - at))):
        digest.update(piece)
        at += len(piece)
    if at < size_bytes or stream.read(1):
        return None
    return memory.whole(), digest.hexdigest()


class _Own:
    def __init__(self, size_bytes: int) -> None:
        # numpy asks the kernel for large pages, which torch does not: they are there several times as quickly.
        self._content = np.empty(size_bytes, dtype=np.uint8)

    def take(self, stream: BinaryIO, at: int, count: int) -> memoryview:
        place = self._content.data[at : at + count]
        return place[: stream.readinto(place)]  # type: ignore[attr-defined]

    def whole(self) -> Arrived:
        return Arrived(torch.from_numpy(self._content))


class _Shared:
    """Lives as long as a tensor over it; what others have mapped stays for them."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._descriptor = os.memfd_create("abruzzi-checkpoint")
        self._closing = weakref.finalize(self, os.close, self._descriptor)
        os.ftruncate(self._descriptor, size_bytes)
        self._piece = memoryview(bytearray(_PIECE_BYTES))

    def take(self, stream: BinaryIO, at: int, count: int) -> memoryview:
        piece = self._piece[: stream.readinto(self._piece[:count])]  # type: ignore[attr-defined]
        done = 0
        while done < len(piece):
            done += os.pwrite(self._descriptor, piece[done:], at + done)
        return piece

    def whole(self) -> Arrived:
        memory = _Mapped(self._descriptor, self._size_bytes, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        self._closing.detach()
        weakref.finalize(memory, os.close, self._descriptor)
        return Arrived(torch.frombuffer(memory, dtype=torch.uint8), Handle.of(self._descriptor))


class _Mapped(mmap.mmap):
    """One that can be referred to weakly."""
