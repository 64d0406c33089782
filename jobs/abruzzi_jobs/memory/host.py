"""Activations on the host between forward and backward, a buffer for each storage; buffers are used again from step to step.

On CUDA memory is pinned, and one stream copies out while another copies in: compute waits for neither until it needs what comes. Elsewhere the host
is the same memory, but not PyTorch's allocator: anonymous pages of the operating system's, so that what lies here is counted apart.
"""

from __future__ import annotations

import mmap
from collections import defaultdict
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

_PAGE = 4096


class Away:
    """What was copied to the host. Its buffer is free again when this goes."""

    def __init__(self, host: _Host, buffer: Tensor, x: Tensor, left: Any) -> None:
        self._host, self._buffer, self._left = host, buffer, left
        self._size, self._dtype, self._device = x.shape, x.dtype, x.device
        self._coming: tuple[Tensor, Any] | None = None

    def fetch(self) -> None:
        """Begins to copy it back, where a device can do so beside computing."""
        if self._coming is None and self._host.overlaps:
            self._coming = self._host.copy_in(self._here(), self._device, self._left)

    def back(self) -> Tensor:
        """On its device again, contiguous."""
        coming = self._coming or self._host.copy_in(self._here(), self._device, self._left)
        self._coming = None
        self._host.arrived(*coming)
        self._left = coming[1]
        return coming[0]

    def _here(self) -> Tensor:
        return self._buffer[: self._size.numel() * self._dtype.itemsize].view(self._dtype).view(self._size)

    def __del__(self) -> None:
        last = self._left if self._coming is None else self._coming[1]
        self._host.free[len(self._buffer)].append((self._buffer, last))


class _Host:
    """Buffers that are free, by size, each with what must have happened before it is written again."""

    overlaps = False

    def __init__(self) -> None:
        self.free: dict[int, list[tuple[Tensor, Any]]] = defaultdict(list)

    def away(self, x: Tensor) -> Away:
        """A copy of a contiguous tensor."""
        size = _class_of(x.nbytes)
        buffer, before = self.free[size].pop() if self.free[size] else (self._new(size), None)
        here = buffer[: x.nbytes].view(x.dtype).view(x.shape)
        return Away(self, buffer, x, self.copy_out(x, here, before))

    def copy_out(self, x: Tensor, here: Tensor, _before: Any) -> Any:
        here.copy_(x)
        return None

    def copy_in(self, here: Tensor, _device: torch.device, _after: Any) -> tuple[Tensor, Any]:
        return here.clone(), None

    def arrived(self, x: Tensor, event: Any) -> None:
        """Called before what came is read."""

    def _new(self, size: int) -> Tensor:
        return torch.frombuffer(mmap.mmap(-1, size), dtype=torch.uint8)


class _PinnedHost(_Host):
    overlaps = True

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._out, self._in = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def copy_out(self, x: Tensor, here: Tensor, _before: Any) -> Any:
        self._out.wait_stream(torch.cuda.current_stream(x.device))
        if _before is not None:
            self._out.wait_event(_before)
        with torch.cuda.stream(self._out):
            here.copy_(x, non_blocking=True)
        x.record_stream(self._out)  # its memory is not given to others before it has been read
        return self._out.record_event()

    def copy_in(self, here: Tensor, _device: torch.device, _after: Any) -> tuple[Tensor, Any]:
        self._in.wait_event(_after)
        with torch.cuda.stream(self._in):
            x = torch.empty(here.shape, dtype=here.dtype, device=_device)
            x.copy_(here, non_blocking=True)
        return x, self._in.record_event()

    def arrived(self, x: Tensor, event: Any) -> None:
        stream = torch.cuda.current_stream(x.device)
        stream.wait_event(event)
        x.record_stream(stream)

    def _new(self, size: int) -> Tensor:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)


def to_host(x: Tensor) -> Away:
    """Of a contiguous tensor."""
    return _host_of(x.device).away(x)


@lru_cache
def _host_of(device: torch.device) -> _Host:
    return _PinnedHost(device) if device.type == "cuda" else _Host()


def _class_of(size: int) -> int:
    """Buffers of few sizes, at most an eighth too large: experts' rows are never as many twice."""
    unit = max(_PAGE, 1 << max(0, size.bit_length() - 4))
    return -(-size // unit) * unit
