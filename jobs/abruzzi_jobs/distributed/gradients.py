"""Gradients of a step: accumulated in float32 over micro-batches, summed over ranks in flat buckets.

Call `accumulate` after every backward, `reduce` once, read `gradients`, and `reset`. Losses must be divided by the global batch's
targets before backward, so that the sum over micro-batches and ranks is the gradient of the global mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from abruzzi_jobs.distributed.ranks import Ranks

BUCKET_ELEMENTS = 8 << 20
"""32 MB of float32 a message."""


class GradientAccumulator:
    """Float32 parameters accumulate in their own `.grad`; narrower ones in float32 buckets here."""

    def __init__(self, named_parameters: Iterable[tuple[str, nn.Parameter]], *, ranks: Ranks) -> None:
        self._parameters = dict(named_parameters)
        self._ranks = ranks
        needs_buckets = ranks.world_size > 1 or any(p.dtype != torch.float32 for p in self._parameters.values())
        self._buckets, self._views = _buckets(self._parameters) if needs_buckets else ([], {})
        self._filled: set[str] = set()

    @torch.no_grad()
    def accumulate(self) -> None:
        """Move narrow gradients into their float32 accumulators."""
        for name, parameter in self._parameters.items():
            if parameter.dtype != torch.float32 and parameter.grad is not None:
                self._take(name, parameter.grad)
                parameter.grad = None

    def own(self) -> Mapping[str, Tensor]:
        """This rank's part so far, by name, float32; before `reduce`."""
        self.accumulate()
        wide = {name: p.grad for name, p in self._parameters.items() if p.grad is not None}
        return {**wide, **{name: self._views[name] for name in self._filled}}

    @torch.no_grad()
    def reduce(self) -> Mapping[str, Tensor]:
        """The step's gradients by name, float32, summed over ranks; valid until `reset`."""
        if self._ranks.world_size == 1:
            return self.own()
        self.accumulate()
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                self._take(name, parameter.grad)
                parameter.grad = None
            elif name not in self._filled:
                self._views[name].zero_()
        for bucket in self._buckets:
            self._ranks.sum_(bucket)
        return dict(self._views)

    def reset(self) -> None:
        for parameter in self._parameters.values():
            parameter.grad = None
        self._filled.clear()

    def _take(self, name: str, gradient: Tensor) -> None:
        if name in self._filled:
            self._views[name].add_(gradient)
        else:
            self._views[name].copy_(gradient)
            self._filled.add(name)


def _buckets(parameters: Mapping[str, nn.Parameter]) -> tuple[list[Tensor], dict[str, Tensor]]:
    groups: list[list[str]] = [[]]
    size = 0
    for name, parameter in parameters.items():
        if groups[-1] and size + parameter.numel() > BUCKET_ELEMENTS:
            groups.append([])
            size = 0
        groups[-1].append(name)
        size += parameter.numel()
    buckets: list[Tensor] = []
    views: dict[str, Tensor] = {}
    for group in groups:
        members = [parameters[name] for name in group]
        if not members:
            continue
        bucket = torch.zeros(sum(p.numel() for p in members), dtype=torch.float32, device=members[0].device)
        buckets.append(bucket)
        for name, parameter, part in zip(group, members, bucket.split([p.numel() for p in members]), strict=True):
            views[name] = part.view(parameter.shape)
    return buckets, views
