"""The memory ledger: what a forward pass stored for its backward, by module and by kind, in bytes. Measured where autograd saves (saved.py)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

Kind = Literal["kept", "recomputed", "fp8", "offloaded"]


@dataclass(slots=True)
class Entry:
    """A storage that some operation saved; the first that did names the module."""

    module: str
    kind: Kind
    bytes: int
    """What lies between forward and backward: nothing where it is recomputed."""
    plain_bytes: int
    """What would, were it kept."""


class Ledger:
    """Of one forward pass through a model's layers; embedding, final norm and head are not in it, nor parameters."""

    def __init__(self, model: nn.Module) -> None:
        self.entries: list[Entry] = []
        self._inside: list[str] = []
        self._hooks = [
            hook
            for name, module in model.named_modules()
            for hook in (
                module.register_forward_pre_hook(self._enters(name)),
                module.register_forward_hook(lambda *_: self._leaves(), always_call=True),
            )
        ]

    def note(self, kind: Kind, size: int, plain_size: int) -> Entry:
        entry = Entry(self._inside[-1] if self._inside else "", kind, size, plain_size)
        self.entries.append(entry)
        return entry

    def end(self) -> None:
        """The pass is over: modules run without being watched again."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    @property
    def device_bytes(self) -> int:
        return sum(entry.bytes for entry in self.entries if entry.kind != "offloaded")

    @property
    def host_bytes(self) -> int:
        return sum(entry.bytes for entry in self.entries if entry.kind == "offloaded")

    @property
    def plain_bytes(self) -> int:
        """Were everything kept."""
        return sum(entry.plain_bytes for entry in self.entries)

    def by_kind(self) -> dict[Kind, int]:
        found: dict[Kind, int] = defaultdict(int)
        for entry in self.entries:
            found[entry.kind] += entry.bytes
        return dict(found)

    def by_module(self) -> dict[str, int]:
        found: dict[str, int] = defaultdict(int)
        for entry in self.entries:
            found[entry.module] += entry.bytes
        return dict(found)

    def _enters(self, name: str) -> Callable[..., None]:
        return lambda *_: self._inside.append(name)

    def _leaves(self) -> None:
        self._inside.pop()
