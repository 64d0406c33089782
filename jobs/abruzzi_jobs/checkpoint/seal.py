"""Weights and optimizer state rest between updates: sums of their bits, taken after one, tell before the next, and in what is to be saved, whether
anything else has changed them.

A flipped bit in a weight is seen by no replay of a step, since both passes read it, and would be in every checkpoint from then on. The sums are of
integers, whose order does not matter, so they are as exact on an accelerator as on a CPU; they cost a pass over the memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.distributed import node_name
from abruzzi_jobs.distributed.whole import Part

CORRUPTION = "corruption"
"""Of errors that mean it."""
_WORDS = (torch.int64, torch.int32, torch.int16, torch.int8)
_NAMED = 3
"""Tensors that an error names."""

Place = tuple[str, str, int]
"""(weights or optimizer state, name, first row in the whole tensor)"""


def bit_sum(tensor: Tensor) -> Tensor:
    """Of its bits as integers, modulo 2^64, on its device: any one flipped bit changes it. It is of the values, wherever they lie; a copy is made only of
    what is not contiguous, or begins where no such integer does."""
    flat = tensor.detach().contiguous().view(-1)
    word = next(word for word in _WORDS if flat.nbytes % word.itemsize == 0)
    if flat.storage_offset() * flat.dtype.itemsize % word.itemsize:
        flat = flat.clone()
    return flat.view(word).sum(dtype=torch.int64)


class Seal:
    """Of parts by kind, as they are at this moment. Nothing waits for the device until a sum is asked for."""

    @torch.no_grad()
    def __init__(self, parts: Mapping[str, Sequence[Part]]) -> None:
        found: dict[torch.device, tuple[list[Place], list[Tensor]]] = {}
        for kind, of_kind in parts.items():
            for part in of_kind:
                places, sums = found.setdefault(part.tensor.device, ([], []))
                places.append((kind, part.name, part.first))
                sums.append(bit_sum(part.tensor))
        self._found = [(places, torch.stack(sums)) for places, sums in found.values()]

    @cached_property
    def sums(self) -> dict[Place, int]:
        return {
            place: value for places, sums in self._found for place, value in zip(places, sums.tolist(), strict=True)
        }

    def broken(self, again: Seal) -> list[Place]:
        """What of the parts in `again` is not as it was."""
        return [place for place, found in again.sums.items() if self.sums[place] != found]


def refuse_broken(broken: Sequence[Place], *, what: str, rank: int) -> None:
    """Raises AbruzziError `corruption` (exit code 75: tried again on another node) for parts that nothing has trained. `what` happened to them."""
    if broken:
        raise AbruzziError(
            CORRUPTION,
            f"{what}: {named(broken)} of rank {rank}. {node_name()} is suspected of silent corruption.",
            status=503,
            hint="Nothing of it was used or committed. The next attempt goes on from the last checkpoint and avoids the node; test its memory.",
        )


def named(places: Sequence[Place]) -> str:
    names = [f"{name} ({kind}, from row {first})" if first else f"{name} ({kind})" for kind, name, first in places]
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} others" if more > 0 else "")
