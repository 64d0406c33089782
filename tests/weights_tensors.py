"""Weights of several shapes and dtypes, and a sink that serves them. Needs torch alone, so that a bare GPU machine takes it too."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from abruzzi_jobs.rl.weights.registered import as_bytes, checksum


class Parameters:
    """A sink: parameters of an engine that serves a version. `at_load` is called before it loads its n-th bucket."""

    def __init__(self, tensors: dict[str, Tensor], *, version: int = 0) -> None:
        self.served, self.version = tensors, version
        self._next: dict[str, Tensor] | None = None
        self.loads = 0
        self.at_load: Callable[[int], None] = lambda number: None

    def begin_update(self, version: int) -> None:
        assert self._next is None
        assert version > self.version
        self._next, self.loads = {}, 0

    def load_bucket(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        assert self._next is not None
        self.at_load(self.loads)
        self.loads += 1
        for name, tensor in tensors:
            self._next[name] = tensor.clone()

    def finish_update(self, version: int) -> None:
        assert self._next is not None
        if missing := self.served.keys() - self._next.keys():
            raise ValueError(f"parameters are missing: {sorted(missing)}")
        self.served, self.version, self._next = self._next, version, None

    def abandon_update(self) -> None:
        self._next = None

    def sums(self) -> dict[str, str]:
        return {name: checksum(as_bytes(tensor)) for name, tensor in self.served.items()}


class InPieces(Parameters):
    """As an engine that takes large parameters in pieces."""

    def load_piece(self, name: str, start: int, flat_N: Tensor) -> None:
        assert self._next is not None
        self.at_load(self.loads)
        self.loads += 1
        whole = self._next.setdefault(name, torch.empty_like(self.served[name]))
        whole.view(-1)[start : start + len(flat_N)] = flat_N


def weights(version: int, *, count: int = 12) -> dict[str, Tensor]:
    """Of several dtypes and shapes: some fit into a bucket of 4 KiB together, one is larger, one is a scalar, one is empty."""
    generator = torch.Generator().manual_seed(version)
    found = {f"layers.{i}.weight": torch.randn(16, 24, generator=generator) for i in range(count)}
    found["embed.weight"] = torch.randn(70, 40, generator=generator)
    found["norm.weight"] = torch.randn(33, generator=generator).to(torch.bfloat16)
    found["steps"] = torch.tensor(version)
    found["none"] = torch.empty(0, 4)
    found["turned.weight"] = torch.randn(24, 16, generator=generator).t()
    return found


def sums(tensors: dict[str, Tensor]) -> dict[str, str]:
    return {name: checksum(as_bytes(tensor)) for name, tensor in tensors.items()}
