"""What layers keep between forward and backward, by a recipe's policy (paper section 2.4.2).

Hooks on what autograd saves (`torch.autograd.graph.saved_tensors_hooks`) replace a tensor's storage by how to have it again: as it is, by computing it
once more, from eight bits, or from the host. So an output is discarded although the operation behind it keeps it: attention runs once, its queries, keys and values
come back from the latents. (`torch.utils.checkpoint` repeats whole regions, `save_on_cpu` moves everything and waits for it.)

Model code says what could be had again (`recomputed`, `in_eight_bits`); without a store, or where the policy does not name it, that says nothing. Storages are
told apart, not tensors: views of one storage share what is kept. Recomputation is by the forward's own operations on what forward had: the same bits.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from abruzzi_jobs.memory.fp8 import Fp8Tiles, from_fp8_tiles, to_fp8_tiles
from abruzzi_jobs.memory.host import Away, to_host
from abruzzi_jobs.memory.ledger import Entry, Kind, Ledger
from abruzzi_jobs.memory.precision import MemoryPolicy

_WORTH_A_COPY = 4096
"""Bytes below which a storage stays on the device."""

_current: ContextVar[ActivationStore | None] = ContextVar("activation store", default=None)


def recomputed(kind: str, outputs: Sequence[Tensor], function: Callable[..., Any], inputs: Sequence[Tensor]) -> None:
    """`function(*inputs)` gives the outputs (a tensor, or as many) once more, to the bit and in the same layout. To be called before an operation saves them."""
    store = _current.get()
    if store is not None and kind in store.policy.recompute:
        store.recompute(outputs, function, inputs)


def in_eight_bits(x: Tensor) -> None:
    """The policy may keep it in FP8 tiles: what reads it in backward takes gradients at rounded values. To be called before an operation saves it."""
    store = _current.get()
    if store is not None and store.policy.fp8_activations:
        store.eight_bits(x)


class Activations:
    """A model's policy; with a `Ledger`, the next forward pass is counted."""

    def __init__(self) -> None:
        self.policy = MemoryPolicy()
        self.offloads_itself = True
        """Each layer, when it has run; a pipeline's table says when instead (`ActivationStore.offload`)."""
        self._ledger: Ledger | None = None

    def count(self, model: nn.Module) -> Ledger:
        """Of the next forward pass with gradients."""
        self._ledger = Ledger(model)
        return self._ledger

    def begin(self) -> ActivationStore | None:
        """For one forward pass. None where autograd keeps everything anyhow, or nothing."""
        if not torch.is_grad_enabled() or (self.policy.keeps_all and self._ledger is None):
            return None
        ledger, self._ledger = self._ledger, None
        return ActivationStore(self.policy, ledger, offloads_itself=self.offloads_itself)


class ActivationStore:
    """Of one forward pass. The graph holds what is stored; this, the way to move it."""

    def __init__(self, policy: MemoryPolicy, ledger: Ledger | None, *, offloads_itself: bool) -> None:
        self.policy = policy
        self._ledger, self._offloads_itself = ledger, offloads_itself
        self._slots: dict[StorageWeakRef, _Slot] = {}
        """Of the layer that is running."""
        self._others: set[StorageWeakRef] = set()
        self._layers: list[_Layer] = []

    @contextmanager
    def layer(self) -> Iterator[None]:
        """Around a layer's forward."""
        token = _current.set(self)
        try:
            with saved_tensors_hooks(self._pack, _unpack):
                yield
        finally:
            _current.reset(token)
            self._end_layer()

    def end(self) -> None:
        if self._ledger is not None:
            self._ledger.end()

    def offload(self) -> None:
        """Copies to the host what the policy sends there."""
        if self.policy.offload_activations:
            for layer in self._layers:
                layer.offload()

    def fetch(self) -> None:
        """Begins to copy back what is on the host, in the order of backward."""
        for layer in reversed(self._layers):
            layer.fetch()

    def recompute(self, outputs: Sequence[Tensor], function: Callable[..., Any], inputs: Sequence[Tensor]) -> None:
        recipe = _Recipe(function, [self._pack(x) for x in inputs])
        for output in outputs:
            self._slots[StorageWeakRef(output.untyped_storage())] = recipe.slot(output)

    def eight_bits(self, x: Tensor) -> None:
        storage = x.untyped_storage()
        if not x.is_contiguous() or x.nbytes != storage.nbytes():
            raise ValueError(f"in_eight_bits: a tensor of {tuple(x.shape)} that is a view of more; give it whole")
        self._slots[StorageWeakRef(storage)] = _Fp8(x.detach())

    def _pack(self, x: Tensor) -> Any:
        owner = x if x._base is None else x._base
        if isinstance(owner, nn.Parameter):
            return x
        key = StorageWeakRef(x.untyped_storage())
        if not x.is_floating_point() or x.layout != torch.strided or x.is_neg():
            if self._ledger is not None and key not in self._others:
                self._others.add(key)
                size = x.untyped_storage().nbytes()
                self._ledger.note("kept", size, size)
            return x.detach()
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = _Kept(x.untyped_storage())
        if self._ledger is not None and slot.entry is None:
            slot.entry = self._ledger.note(slot.kind, slot.bytes, x.untyped_storage().nbytes())
        slot.left += 1
        return _View(slot, x.dtype, int(x.storage_offset()), x.shape, x.stride())

    def _end_layer(self) -> None:
        layer = _Layer(self._layers[-1] if self._layers else None)
        slots = list(self._slots.values())
        self._slots = {}
        for slot in slots:
            if slot.left:
                layer.slots.append(weakref.ref(slot))
                slot.layer = layer
        self._layers.append(layer)
        del slots
        if self._offloads_itself and self.policy.offload_activations:
            layer.offload()


class _Layer:
    def __init__(self, previous: _Layer | None) -> None:
        self.slots: list[weakref.ref[_Slot]] = []
        self._previous = previous

    def offload(self) -> None:
        for slot in self._living():
            slot.offload()

    def fetch(self) -> None:
        for slot in self._living():
            slot.fetch()

    def arrived(self) -> None:
        """Backward has come here: what it needs next may come already."""
        if self._previous is not None:
            self._previous.fetch()
            self._previous = None

    def _living(self) -> Iterator[_Slot]:
        for reference in self.slots:
            slot = reference()
            if slot is not None:
                yield slot


class _Slot(ABC):
    """One storage."""

    kind: Kind

    def __init__(self, size: int) -> None:
        self.bytes = size
        self.left = 0
        """How often backward will ask for it; it is made once and held until the last."""
        self.entry: Entry | None = None
        self.layer: _Layer | None = None
        self.made: Tensor | None = None

    def value(self) -> Tensor:
        """A tensor over the whole storage."""
        if self.layer is not None:
            self.layer.arrived()
        self.left -= 1
        made = self._make() if self.made is None else self.made
        self.made = made if self.left > 0 else None
        return made

    def offload(self) -> None:
        """Once; where there is something to move."""
        if self.bytes >= _WORTH_A_COPY and self._to_host() and self.entry is not None:
            self.entry.kind = "offloaded"

    def fetch(self) -> None:
        """Begins to copy back what is on the host."""
        for away in self._aways():
            away.fetch()

    @abstractmethod
    def _make(self) -> Tensor: ...

    def _aways(self) -> Sequence[Away]:
        return ()

    def _to_host(self) -> bool:
        return False


class _Kept(_Slot):
    kind: Kind = "kept"

    def __init__(self, storage: torch.UntypedStorage) -> None:
        super().__init__(storage.nbytes())
        self._here: Tensor | None = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
        self._away: Away | None = None

    def _aways(self) -> Sequence[Away]:
        return () if self._away is None else (self._away,)

    def _make(self) -> Tensor:
        if self._here is not None:
            return self._here
        assert self._away is not None
        return self._away.back()

    def _to_host(self) -> bool:
        if self._here is None:
            return False
        self._away, self._here = to_host(self._here), None
        return True


class _Fp8(_Slot):
    kind: Kind = "fp8"

    def __init__(self, x: Tensor) -> None:
        self._dtype = x.dtype
        self._tiles: Fp8Tiles | None = to_fp8_tiles(x)
        self._away: tuple[Away, Away] | None = None
        super().__init__(self._tiles.num_bytes)

    def _aways(self) -> Sequence[Away]:
        return self._away or ()

    def _make(self) -> Tensor:
        tiles = self._tiles
        if tiles is None:
            assert self._away is not None
            codes, scales = self._away
            tiles = Fp8Tiles(codes.back(), scales.back())
        return from_fp8_tiles(tiles, self._dtype).contiguous()

    def _to_host(self) -> bool:
        if self._tiles is None:
            return False
        self._away, self._tiles = (to_host(self._tiles.codes_D), to_host(self._tiles.scales_N)), None
        return True


class _Recipe:
    def __init__(self, function: Callable[..., Any], inputs: list[Any]) -> None:
        self._function, self._inputs = function, inputs
        self._slots: list[weakref.ref[_Recomputed]] = []

    def slot(self, output: Tensor) -> _Recomputed:
        found = _Recomputed(self, len(self._slots), output.untyped_storage().nbytes())
        self._slots.append(weakref.ref(found))
        return found

    def run(self) -> Sequence[Tensor]:
        with torch.no_grad():
            made = self._function(*(_unpack(x) for x in self._inputs))
        outputs = [made] if isinstance(made, Tensor) else made
        for reference, output in zip(self._slots, outputs, strict=False):
            slot = reference()
            if slot is not None and slot.left > 0:
                slot.made = output
        return outputs


class _Recomputed(_Slot):
    kind: Kind = "recomputed"

    def __init__(self, recipe: _Recipe, place: int, plain_bytes: int) -> None:
        super().__init__(0)
        self._recipe, self._place, self._plain_bytes = recipe, place, plain_bytes

    def _make(self) -> Tensor:
        made = self._recipe.run()[self._place]
        if made.untyped_storage().nbytes() != self._plain_bytes:
            raise RuntimeError(
                f"recomputed: {made.untyped_storage().nbytes()} bytes came for {self._plain_bytes}; the function must give the forward's layout"
            )
        return made


@dataclass(slots=True)
class _View:
    slot: _Slot
    dtype: torch.dtype
    offset: int
    size: torch.Size
    stride: tuple[int, ...]


def _unpack(packed: Any) -> Tensor:
    if isinstance(packed, Tensor):
        return packed
    view: _View = packed
    whole = view.slot.value()
    return torch.empty(0, dtype=view.dtype, device=whole.device).set_(
        whole.untyped_storage(), view.offset, view.size, view.stride
    )
