"""What a member has to give: tensors by their logical names, as bytes, with a checksum each (paper 3.3.2: a local copy of the parameters)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import xxhash
from torch import Tensor

from abruzzi_jobs.rl.weights.plan import Bucket, Parameter, Piece, Plan, key_of

_CHUNK_BYTES = 1 << 20
"""Copied and hashed in turns, so that the hash reads from the cache."""


class Registered:
    """Immutable. `version`: of the weights; a group gives one version only."""

    def __init__(self, version: int, tensors: Mapping[str, Tensor], *, copy: bool) -> None:
        """`copy`: a copy of its own, in main memory (pinned where there is a GPU), so that training may go on; otherwise the caller's tensors
        must not change until the update has ended."""
        self.version = version
        self.copied = copy
        self.flat: dict[str, Tensor] = {}
        self.sums: dict[str, str] = {}
        for name, tensor in tensors.items():
            flat = as_bytes(tensor.detach())
            self.flat[name], self.sums[name] = _copied(flat) if copy else (flat, checksum(flat))
        parameters = [Parameter.of(name, tensor, 0) for name, tensor in tensors.items()]
        self.key = key_of(parameters)
        self.rows = [parameter.to_json() for parameter in parameters]
        """Names, dtypes and shapes, to be told to others."""

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


def _copied(flat_N: Tensor) -> tuple[Tensor, str]:
    copy = torch.empty(len(flat_N), dtype=torch.uint8, pin_memory=flat_N.is_cuda)
    hasher = xxhash.xxh3_64()
    for start in range(0, len(flat_N), _CHUNK_BYTES):
        part = copy[start : start + _CHUNK_BYTES]
        part.copy_(flat_N[start : start + _CHUNK_BYTES])
        hasher.update(part.numpy().data)
    return copy, hasher.hexdigest()
