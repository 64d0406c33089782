"""The receiving side: pieces of parameters become whole ones in an engine, and their checksums are compared before it may serve them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import torch
import xxhash
from torch import Tensor

from abruzzi_jobs.rl.weights.plan import Bucket, Parameter, Piece, Plan

_APART_BYTES = 1 << 20
"""From here on a bucket is worth a second thread."""


class Sink(Protocol):
    """Of `rl.engine.protocol.Engine`, what an update needs."""

    @property
    def version(self) -> int: ...

    def begin_update(self, version: int) -> None: ...

    def load_bucket(self, tensors: Iterable[tuple[str, Tensor]]) -> None: ...

    def finish_update(self, version: int) -> None: ...

    def abandon_update(self) -> None: ...


@runtime_checkable
class TakesPieces(Protocol):
    """A sink that can take a parameter larger than a bucket in pieces; for others it is put together here, at the cost of one more copy."""

    def load_piece(self, name: str, start: int, flat_N: Tensor) -> None:
        """Elements `start` to `start + N` of the flattened parameter."""
        ...


class Reloader:
    """Of one update, into one sink."""

    def __init__(self, plan: Plan, sink: Sink, saw: Callable[[Parameter, Tensor], None]) -> None:
        """`saw`: is shown every piece. Close it."""
        self._plan, self._sink, self._saw = plan, sink, saw
        self._summing = ThreadPoolExecutor(1, "weights-checksums")
        self._hashers: dict[int, xxhash.xxh3_64] = {}
        self._partial: dict[int, Tensor] = {}
        self._sums: dict[str, str] = {}
        self._pending: deque[Future[None]] = deque()

    def load(self, bucket: Bucket, contents: Sequence[Tensor], *, stays: bool) -> None:
        """`contents`: uint8 [bytes], one a piece. Pieces of a parameter come in order. `stays`: they remain as they are until the update has ended;
        otherwise they may be used again afterwards.

        Checksums are computed by a second thread: beside the copy, or where the content stays, behind it, while much of it is still in a cache.
        """
        if stays:
            self._load(bucket, contents)
            self._pending.append(self._summing.submit(self._hash, bucket, contents))
        elif bucket.nbytes < _APART_BYTES or any(flat_N.is_cuda for flat_N in contents):
            self._hash(bucket, contents)
            self._load(bucket, contents)
        else:
            summed = self._summing.submit(self._hash, bucket, contents)
            try:
                self._load(bucket, contents)
            finally:
                summed.result()

    @property
    def sums(self) -> dict[str, str]:
        """Of the parameters that are whole."""
        while self._pending:
            self._pending.popleft().result()
        return self._sums

    def close(self) -> None:
        self._summing.shutdown(cancel_futures=True)

    def _load(self, bucket: Bucket, contents: Sequence[Tensor]) -> None:
        whole: list[tuple[str, Tensor]] = []
        for piece, flat_N in zip(bucket.pieces, contents, strict=True):
            parameter = self._plan.parameters[piece.parameter]
            self._saw(parameter, flat_N)
            if piece.nbytes == parameter.nbytes:
                whole.append((parameter.name, as_parameter(flat_N, parameter)))
            elif isinstance(self._sink, TakesPieces):
                start = piece.start // parameter.torch_dtype.itemsize
                self._sink.load_piece(parameter.name, start, flat_N.view(parameter.torch_dtype))
            elif (assembled := self._assemble(piece, parameter, flat_N)) is not None:
                whole.append((parameter.name, as_parameter(assembled, parameter)))
        if whole:
            self._sink.load_bucket(whole)

    def _hash(self, bucket: Bucket, contents: Sequence[Tensor]) -> None:
        for piece, flat_N in zip(bucket.pieces, contents, strict=True):
            parameter = self._plan.parameters[piece.parameter]
            hasher = self._hashers.setdefault(piece.parameter, xxhash.xxh3_64())
            hasher.update(flat_N.cpu().numpy().data)
            if piece.stop == parameter.nbytes:
                self._sums[parameter.name] = self._hashers.pop(piece.parameter).hexdigest()

    def _assemble(self, piece: Piece, parameter: Parameter, flat_N: Tensor) -> Tensor | None:
        whole = self._partial.get(piece.parameter)
        if whole is None:
            whole = self._partial[piece.parameter] = torch.empty(
                parameter.nbytes, dtype=torch.uint8, device=flat_N.device
            )
        whole[piece.start : piece.stop].copy_(flat_N)
        return self._partial.pop(piece.parameter) if piece.stop == parameter.nbytes else None


def as_parameter(flat_N: Tensor, parameter: Parameter) -> Tensor:
    return flat_N.view(parameter.torch_dtype).view(parameter.shape)


def compare(expected: Mapping[str, str], found: Mapping[str, str]) -> None:
    """Raises ValueError that names the parameters whose checksums differ or are missing."""
    wrong = sorted(name for name in expected if found.get(name) != expected[name])
    if wrong:
        first = wrong[0]
        raise ValueError(
            f"checksums of {len(wrong)} of {len(expected)} parameters differ, first {first}: "
            f"sent {expected[first]}, received {found.get(first, 'nothing')}"
        )
