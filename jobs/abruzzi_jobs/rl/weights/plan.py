"""Which bytes travel in which bucket: pure. Parameter by parameter, each byte exactly once, no bucket above its limit (paper appendix G).

A plan depends on names, shapes and owners only, never on values, so it is made once and kept (reference/rl.md 6, pain 15).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise, zip_longest
from math import prod
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 64
"""Bytes: where pieces begin in a bucket and are cut in a parameter; a multiple of every element's size, and a cache line."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What is known of a tensor without its values. `owner`: the rank that has it registered."""

    name: str
    dtype: str
    """As in `torch.<dtype>`."""
    shape: tuple[int, ...]
    owner: int

    @classmethod
    def of(cls, name: str, tensor: Tensor, owner: int) -> Parameter:
        return cls(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), owner)

    @property
    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype)

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.torch_dtype.itemsize

    def to_json(self) -> list[Any]:
        return [self.name, self.dtype, list(self.shape)]

    @classmethod
    def from_json(cls, content: Sequence[Any], owner: int) -> Parameter:
        name, dtype, shape = content
        return cls(name, dtype, tuple(shape), owner)


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes `start` to `stop` of a parameter, at `offset` of the bucket."""

    parameter: int
    """Index in the plan."""
    start: int
    stop: int
    offset: int

    @property
    def nbytes(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Bucket:
    index: int
    owner: int
    pieces: tuple[Piece, ...]

    @property
    def nbytes(self) -> int:
        """With the gaps of alignment."""
        return max((piece.offset + piece.nbytes for piece in self.pieces), default=0)


@dataclass(frozen=True, slots=True)
class Plan:
    parameters: tuple[Parameter, ...]
    buckets: tuple[Bucket, ...]
    bucket_bytes: int

    @property
    def size_bytes(self) -> int:
        return sum(parameter.nbytes for parameter in self.parameters)

    @property
    def owners(self) -> tuple[int, ...]:
        return tuple(sorted({parameter.owner for parameter in self.parameters}))


def make_plan(parameters: Iterable[Parameter], bucket_bytes: int, *, interleave: bool = True) -> Plan:
    """Buckets of at most `bucket_bytes`, each of one owner. A parameter that fits into a bucket is never cut; a larger one has buckets of its own.

    `interleave`: the owners take turns, so that all of them copy in at once (two-stage pipeline); otherwise one after the other, in the order of
    their parameters. Raises ValueError where a name occurs twice or the limit is none.
    """
    parameters = tuple(parameters)
    if bucket_bytes < ALIGNMENT or bucket_bytes % ALIGNMENT:
        raise ValueError(f"bucket_bytes: {bucket_bytes} is no multiple of {ALIGNMENT}")
    names = [parameter.name for parameter in parameters]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        ranks = [parameter.owner for parameter in parameters if parameter.name == twice]
        raise ValueError(f"parameter {twice} is registered twice, by ranks {ranks[0]} and {ranks[1]}")
    by_owner: dict[int, list[int]] = {}
    for index, parameter in enumerate(parameters):
        by_owner.setdefault(parameter.owner, []).append(index)
    packed = {owner: _pack(parameters, indices, bucket_bytes) for owner, indices in by_owner.items()}
    rows = [[(owner, pieces) for pieces in packed[owner]] for owner in sorted(packed)]
    order = [item for turn in zip_longest(*rows) for item in turn if item is not None] if interleave else chain(*rows)
    buckets = tuple(Bucket(index, owner, tuple(pieces)) for index, (owner, pieces) in enumerate(order))
    return Plan(parameters, buckets, bucket_bytes)


def _pack(parameters: Sequence[Parameter], indices: Sequence[int], bucket_bytes: int) -> list[list[Piece]]:
    buckets: list[list[Piece]] = []
    room = 0
    for index in indices:
        nbytes = parameters[index].nbytes
        if nbytes > bucket_bytes:
            cuts = [*range(0, nbytes, bucket_bytes), nbytes]
            buckets += [[Piece(index, start, stop, 0)] for start, stop in pairwise(cuts)]
            room = 0
            continue
        if nbytes > room or not buckets:
            buckets.append([])
            room = bucket_bytes
        offset = bucket_bytes - room
        buckets[-1].append(Piece(index, 0, nbytes, offset))
        room -= -(-nbytes // ALIGNMENT) * ALIGNMENT
    return buckets


def key_of(parameters: Sequence[Parameter]) -> str:
    """Identifies names, dtypes, shapes and their order."""
    text = json.dumps([parameter.to_json() for parameter in parameters])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Planner:
    """The last plan, by the keys of what its owners have."""

    def __init__(self, *, interleave: bool = True) -> None:
        self._interleave = interleave
        self._key: object = None
        self._plan: Plan | None = None
        self.made = 0

    def plan(self, keys: Mapping[int, str], parameters: Mapping[int, Sequence[Parameter]], bucket_bytes: int) -> Plan:
        """Of each owner's parameters. Raises ValueError as `make_plan`."""
        key = sorted(keys.items()), bucket_bytes
        if self._plan is None or key != self._key:
            every = [parameter for owner in sorted(parameters) for parameter in parameters[owner]]
            self._plan = make_plan(every, bucket_bytes, interleave=self._interleave)
            self._key = key
            self.made += 1
        return self._plan
