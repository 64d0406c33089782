"""New weights beside those that are served: filled bucket by bucket, put in place at once or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from abruzzi_jobs.models import Decoder

Shapes = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""By logical parameter name."""


class Coming:
    """A set of parameters that is on its way: bucket by bucket, whole or not at all."""

    def __init__(self, shapes: Shapes, device: torch.device, version: int) -> None:
        self.version = version
        self._shapes, self._device = shapes, device
        self._coming: dict[str, Tensor] = {}
        self._missing: dict[str, int] = {}
        """Elements that have not come yet."""
        self._next: int | None = None

    def begin(self, version: int) -> None:
        if self._next is not None:
            raise ValueError(f"begin_update({version}): the update to {self._next} is not finished; abandon it first")
        if version <= self.version:
            raise ValueError(
                f"begin_update({version}): the weights are of version {self.version} already; versions only grow"
            )
        self._next = version
        self._coming = {
            name: torch.empty(shape, dtype=dtype, device=self._device) for name, (shape, dtype) in self._shapes.items()
        }
        self._missing = {name: tensor.numel() for name, tensor in self._coming.items()}

    def load(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        for name, tensor in tensors:
            target = self._target(name)
            if target.shape != tensor.shape:
                raise ValueError(f"{name}: shape {tuple(tensor.shape)}, but the model's is {tuple(target.shape)}")
            target.copy_(tensor.detach())
            self._missing[name] = 0

    def load_piece(self, name: str, start: int, flat: Tensor) -> None:
        target = self._target(name).view(-1)
        if start < 0 or start + flat.numel() > target.numel():
            raise ValueError(f"{name}: elements {start} to {start + flat.numel()} of {target.numel()}")
        target[start : start + flat.numel()].copy_(flat.detach())
        self._missing[name] -= flat.numel()

    def whole(self, version: int) -> Mapping[str, Tensor]:
        if self._next != version:
            raise ValueError(f"finish_update({version}): the update that was begun is {self._next}")
        missing = sorted(name for name, elements in self._missing.items() if elements > 0)
        if missing:
            raise ValueError(
                f"finish_update({version}): {len(missing)} parameters have not come whole, {missing[0]} among them; version {self.version} stays"
            )
        return self._coming

    def abandon(self) -> None:
        self._coming, self._missing, self._next = {}, {}, None

    def _target(self, name: str) -> Tensor:
        if self._next is None:
            raise ValueError("load_bucket: begin_update has not been called")
        target = self._coming.get(name)
        if target is None:
            raise ValueError(f"{name}: no parameter of this model")
        return target


class Weights(Coming):
    """With a model's parameters and buffers, which they replace."""

    def __init__(self, model: Decoder, version: int) -> None:
        self._served = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items()}
        shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in self._served.items()}
        super().__init__(shapes, next(iter(self._served.values())).device, version)
        self.are_here = True

    def drop(self) -> None:
        """The memory of those served; `finish` brings others."""
        for tensor in self._served.values():
            tensor.data = torch.empty(0, dtype=tensor.dtype, device=self._device)
        self.are_here = False

    def finish(self, version: int) -> None:
        coming = self.whole(version)
        for name, tensor in self._served.items():
            tensor.data = coming[name]
        self.version, self.are_here = version, True
        self.abandon()

    def named(self) -> Mapping[str, Tensor]:
        return self._served
