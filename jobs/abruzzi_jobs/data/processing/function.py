"""What is done to a shard: a function by name, its configuration and seed, and the digest of all three.

A function is found by `module:name`, so that another process or another machine can make it again from a few lines of JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any, Protocol

Row = dict[str, Any]
"""One JSON object of a shard; `text` is its text."""


class Output(Protocol):
    """Where a function puts what it makes of a shard's rows."""

    def keep(self, row: Row) -> None: ...

    def reject(self, row: Row, reason: str) -> None:
        """`reason` names a rule, such as `quality.short_lines`. Counted, and the first of each reason are kept to be looked at."""
        ...

    def note(self, name: str, amount: int = 1) -> None:
        """Counts something that happened to rows that stay, such as `privacy.email`."""
        ...

    def attach(self, suffix: str, content: bytes) -> None:
        """A file beside the shard, `<shard>.<suffix>`."""
        ...


class ShardFunction(Protocol):
    """Its output is a function of rows, configuration and seed alone."""

    def __call__(self, rows: Iterator[Row], output: Output) -> None: ...


@dataclass(frozen=True, kw_only=True)
class FunctionSpec:
    target: str
    """`module:name` of a callable (config, seed, files) -> ShardFunction."""
    version: int
    """Rises when the same configuration gives other bytes."""
    config: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    files: dict[str, str] = field(default_factory=dict)
    """{name: sha256} of files that it reads whole; they lie in the folder that the shards are written to."""

    def digest(self) -> str:
        """The stage hash."""
        canonical = json.dumps(asdict(self), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()

    def load(self, files: dict[str, bytes]) -> ShardFunction:
        module, _, name = self.target.partition(":")
        return getattr(import_module(module), name)(self.config, self.seed, files)
