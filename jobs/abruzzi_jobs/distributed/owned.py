"""What ranks give to the owners of pieces and get from them, in few messages: a small message takes a collective's latency and no more, and a
layer of experts has a piece for every owner. Those of one owner travel together in a bucket, as in PyTorch's DistributedDataParallel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from abruzzi_jobs.distributed.mesh import Group

BUCKET_BYTES = 25 << 20
"""DistributedDataParallel's. What is larger goes as it lies, without a copy."""
UNDER_WAY: int = 4
"""Buckets at once, so that a step has so many copies and no more."""


@dataclass(frozen=True, slots=True)
class Owned:
    """A contiguous gradient, and the parameter it is of, that have one owner in a group."""

    gradient: Tensor
    parameter: Tensor
    owner: int
    """Place in the group."""
    group: Group


@dataclass(frozen=True, slots=True)
class _Bucket:
    """Of one owner, one dtype and one group of ranks: several process groups may be of the same ranks."""

    owner: int
    """Rank in the world."""
    group: Group
    tensors: list[Tensor]


_Send = Callable[[Tensor, int, dist.ProcessGroup | None], dist.Work | None]


class OwnedPieces:
    """Of this rank, with the ranks it shares them with, who all call `reduce` and `broadcast` together."""

    def __init__(self, pieces: Iterable[Owned], *, rank: int) -> None:
        shared = [piece for piece in pieces if piece.group.size > 1]
        self._rank = rank
        self._gradients = _buckets([(piece, piece.gradient) for piece in shared])
        self._parameters = _buckets([(piece, piece.parameter) for piece in shared])

    def reduce(self) -> None:
        """Sum each gradient at its owner; what the others' hold then is undefined."""
        self._each(
            self._gradients,
            lambda sent, owner, group: dist.reduce(sent, owner, group=group, async_op=True),
            takes=lambda bucket: bucket.owner == self._rank,
        )

    def broadcast(self) -> None:
        """Give each owner's parameter to the others."""
        self._each(
            self._parameters,
            lambda sent, owner, group: dist.broadcast(sent, owner, group=group, async_op=True),
            takes=lambda bucket: bucket.owner != self._rank,
        )

    def _each(self, buckets: Sequence[_Bucket], send: _Send, *, takes: Callable[[_Bucket], bool]) -> None:
        under_way: deque[tuple[_Bucket, Tensor, dist.Work | None]] = deque()

        def finish() -> None:
            bucket, sent, work = under_way.popleft()
            if work is not None:
                work.wait()
            if len(bucket.tensors) > 1 and takes(bucket):
                flat = [tensor.view(-1) for tensor in bucket.tensors]
                torch._foreach_copy_(flat, sent.split([len(tensor) for tensor in flat]))

        for bucket in buckets:
            first, *others = bucket.tensors
            sent = torch.cat([tensor.view(-1) for tensor in bucket.tensors]) if others else first
            under_way.append((bucket, sent, send(sent, bucket.owner, bucket.group.handle)))
            if len(under_way) == UNDER_WAY:
                finish()
        while under_way:
            finish()


def _buckets(those: Sequence[tuple[Owned, Tensor]]) -> list[_Bucket]:
    """In the same order on all ranks of a group, which have the same pieces in the same order."""
    found: list[_Bucket] = []
    open_ones: dict[tuple[tuple[int, ...], int, torch.dtype], _Bucket] = {}
    for piece, tensor in those:
        ranks = tuple(piece.group.ranks)
        key = (ranks, piece.owner, tensor.dtype)
        bucket = open_ones.get(key)
        if bucket is None or sum(t.nbytes for t in bucket.tensors) + tensor.nbytes > BUCKET_BYTES:
            bucket = open_ones[key] = _Bucket(ranks[piece.owner], piece.group, [])
            found.append(bucket)
        bucket.tensors.append(tensor)
    return found
