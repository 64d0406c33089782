"""Tensors in memory that other processes can map: engines copy from where a trainer has them, and nothing is written in between.

How others reach it is in distributed/mapped.py; for those who cannot, the bytes travel through a ring (shared_memory.py).
"""

from __future__ import annotations

import itertools
import mmap
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from abruzzi_jobs.distributed.mapped import IS_POSSIBLE, Handle
from abruzzi_jobs.rl.weights.plan import ALIGNMENT

_numbers = itertools.count()
_mapped: weakref.WeakSet[Segment] = weakref.WeakSet()
_spare: list[Segment] = []
_lock = threading.Lock()


class Segment(mmap.mmap):
    """Bytes of this process that others may map. Lives as long as a tensor over it; what others have mapped stays for them."""

    handle: Handle
    first: int

    @classmethod
    def of(cls, size_bytes: int) -> Self:
        """Raises OSError where the machine has no such room."""
        descriptor = os.memfd_create("abruzzi-weights")
        try:
            os.posix_fallocate(descriptor, 0, size_bytes)  # an error here, not a SIGBUS at the first write
            segment = cls(descriptor, size_bytes)
        except BaseException:
            os.close(descriptor)
            raise
        weakref.finalize(segment, os.close, descriptor)
        segment.handle = Handle.of(descriptor, number=next(_numbers))
        segment.first = segment.tensor().data_ptr()
        with _lock:
            _mapped.add(segment)
        return segment

    def tensor(self) -> Tensor:
        """All of it, uint8 [bytes]."""
        return torch.frombuffer(self, dtype=torch.uint8)

    def holds(self, flat_N: Tensor) -> bool:
        offset = flat_N.data_ptr() - self.first
        return offset >= 0 and offset + flat_N.nbytes <= self.handle.size_bytes


def segment_of(flat_N: Tensor) -> Segment | None:
    """The one that it lies in. None: nobody else can read it."""
    with _lock:
        return next((segment for segment in _mapped if segment.holds(flat_N)), None)


def room_for(sizes_bytes: Sequence[int], *, user: object = None) -> list[Tensor]:
    """Tensors, uint8 [bytes], of these sizes in one segment. Raises OSError where the machine has no such room.

    `user`: an object that has all of them to itself; when it is gone, the segment is kept for the next one of this size: new memory costs several times what
    a copy into it does.
    """
    offsets = [0, *itertools.accumulate(-(-size // ALIGNMENT) * ALIGNMENT for size in sizes_bytes)]
    wanted = max(offsets[-1], mmap.PAGESIZE)
    with _lock:
        fitting = next((segment for segment in _spare if segment.handle.size_bytes == wanted), None)
        _spare.clear()
    segment = fitting or Segment.of(wanted)
    if user is not None:
        weakref.finalize(user, _keep, segment)
    whole_N = segment.tensor()
    return [whole_N[offset : offset + size] for offset, size in zip(offsets, sizes_bytes, strict=False)]


def _keep(segment: Segment) -> None:
    _spare[:] = [segment]


def share_memory(module: nn.Module) -> None:
    """Moves a module's parameters and buffers, in place, to where engines of this machine can read them: an update then costs one copy, not two.

    Before an optimizer is made: parameters stay the same objects, but its FP32 masters (MuonClip) are views of the memory that they had then, and it
    would train what nobody reads. Modules on GPUs are left as they are.
    """
    tensors: Mapping[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    held = [tensor for tensor in tensors.values() if tensor.device.type == "cpu" and tensor.numel()]
    if not IS_POSSIBLE or not held:
        return
    for tensor, flat_N in zip(held, room_for([tensor.nbytes for tensor in held]), strict=True):
        shared = flat_N.view(tensor.dtype).view(tensor.shape)
        shared.copy_(tensor.detach())
        tensor.data = shared
