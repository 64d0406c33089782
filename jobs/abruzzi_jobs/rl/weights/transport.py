"""How buckets get from their owner to all members. One instance a member, opened when the group's first update begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from abruzzi_jobs.rl.weights.group import Group
from abruzzi_jobs.rl.weights.plan import Bucket, Plan
from abruzzi_jobs.rl.weights.registered import Registered
from abruzzi_jobs.rl.weights.schedule import Pipeline


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of one update."""

    plan: Plan
    source: Registered
    """This member's own."""
    readers: frozenset[int]
    """Ranks that load what arrives."""


class Transport(Protocol):
    """`begin` and `end` frame one broadcast; between them the bucket before it is reloaded."""

    name: str
    pipeline: Pipeline

    def open(self, group: Group, bucket_bytes: int) -> None:
        """All members together, before the first update and again where buckets need more room."""
        ...

    def start(self, traffic: Traffic) -> None: ...

    def copy_in(self, buckets: Sequence[Bucket]) -> None:
        """Of its own ones, host to device; ended by the next `begin`."""
        ...

    def begin(self, bucket: Bucket) -> None: ...

    def end(self, bucket: Bucket) -> list[Tensor]:
        """The bucket's content, uint8 [bytes], one a piece, valid until `release`. Raises at the group's deadline."""
        ...

    def stays(self, bucket: Bucket) -> bool:
        """Whether its content is valid until the update has ended, not only until `release`."""
        ...

    def release(self, bucket: Bucket) -> None: ...

    def abort(self) -> None:
        """From a watchdog's thread: what blocks in this transport ends with an error."""
        ...

    def close(self) -> None: ...


class InProcess:
    """Trainer and engine in one process: the engine reads from the registered tensors themselves."""

    name = "in process"
    pipeline: Pipeline = "direct"

    def open(self, group: Group, bucket_bytes: int) -> None:
        if group.size > 1:
            raise ValueError(f"a group of {group.size} members needs a transport between processes")

    def start(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def copy_in(self, buckets: Sequence[Bucket]) -> None: ...

    def begin(self, bucket: Bucket) -> None: ...

    def end(self, bucket: Bucket) -> list[Tensor]:
        return self._traffic.source.pieces(self._traffic.plan, bucket)

    def stays(self, bucket: Bucket) -> bool:
        return True

    def release(self, bucket: Bucket) -> None: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...
