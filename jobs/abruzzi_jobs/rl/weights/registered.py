"""What a member has to give: tensors by their logical names, as bytes, with a checksum each (paper 3.3.2: a local copy of the parameters)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
import xxhash
from torch import Tensor

from abruzzi_jobs.distributed.mapped import IS_POSSIBLE
from abruzzi_jobs.rl.weights import segment
from abruzzi_jobs.rl.weights.plan import Bucket, Parameter, Piece, Plan, key_of

_CHUNK_BYTES = 1 << 20
"""Copied and hashed in turns, so that the hash reads from the cache."""
_APART_BYTES = 16 << 20
"""From here on it is worth threads."""
_THREADS = 2
"""Nearly as quick as memory on the machines that we know."""


class Registered:
    """Immutable. `version`: of the weights; a group gives one version only."""

    def __init__(self, version: int, tensors: Mapping[str, Tensor], *, copy: bool) -> None:
        """`copy`: a copy of its own, in memory that engines of this machine can map (of GPUs' tensors, in pinned memory), so that training may go on;
        otherwise the caller's tensors must not change until the update has ended."""
        self.version = version
        self.copied = copy
        flats = {name: as_bytes(tensor.detach()) for name, tensor in tensors.items()}
        self.flat: dict[str, Tensor] = (
            dict(zip(flats, self._room_for(list(flats.values())), strict=True)) if copy else flats
        )
        work = _copied if copy else checksum
        given = [flats.values(), self.flat.values()] if copy else [flats.values()]
        if sum(flat_N.nbytes for flat_N in flats.values()) < _APART_BYTES:
            sums = list(map(work, *given))
        else:
            with ThreadPoolExecutor(_THREADS, "weights-checksums") as threads:
                sums = list(threads.map(work, *given))
        self.sums = dict(zip(flats, sums, strict=True))
        parameters = [Parameter.of(name, tensor, 0) for name, tensor in tensors.items()]
        self.key = key_of(parameters)
        self.rows = [parameter.to_json() for parameter in parameters]
        """Names, dtypes and shapes, to be told to others."""

    def _room_for(self, flats: Sequence[Tensor]) -> list[Tensor]:
        if not IS_POSSIBLE or any(flat_N.is_cuda for flat_N in flats):
            return [torch.empty(len(flat_N), dtype=torch.uint8, pin_memory=flat_N.is_cuda) for flat_N in flats]
        return segment.room_for([flat_N.nbytes for flat_N in flats], user=self)

    def pieces(self, plan: Plan, bucket: Bucket) -> list[Tensor]:
        """Views, uint8 [bytes], one a piece of a bucket of this member's."""
        return [self.flat[plan.parameters[p.parameter].name][p.start : p.stop] for p in bucket.pieces]

    def pack(self, plan: Plan, bucket: Bucket, buffer_N: Tensor) -> None:
        """Write a bucket as it travels; N bytes."""
        for piece, content in zip(bucket.pieces, self.pieces(plan, bucket), strict=True):
            slice_of(buffer_N, piece).copy_(content, non_blocking=buffer_N.is_cuda)


def slice_of(buffer_N: Tensor, piece: Piece) -> Tensor:
    return buffer_N[piece.offset : piece.offset + piece.nbytes]


def as_bytes(tensor: Tensor) -> Tensor:
    """A view (a copy where it is not contiguous) as uint8 [bytes]."""
    return tensor.contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else torch.empty(0, dtype=torch.uint8)


def checksum(flat_N: Tensor) -> str:
    return hasher_of([flat_N]).hexdigest()


def hasher_of(parts: Sequence[Tensor]) -> xxhash.xxh3_64:
    hasher = xxhash.xxh3_64()
    for part in parts:
        hasher.update(part.cpu().numpy().data)
    return hasher


def _copied(flat_N: Tensor, copy_N: Tensor) -> str:
    """Its checksum."""
    hasher = xxhash.xxh3_64()
    for start in range(0, len(flat_N), _CHUNK_BYTES):
        part = copy_N[start : start + _CHUNK_BYTES]
        part.copy_(flat_N[start : start + _CHUNK_BYTES])
        hasher.update(part.numpy().data)
    return hasher.hexdigest()
