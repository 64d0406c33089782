"""Ranks that save together, in threads beside training: what each has done is told to all, in groups of their own, which training does not wait for."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.distributed import Ranks

_PATIENCE = datetime.timedelta(hours=1)
"""With the slowest rank's part. A rank that dies is noticed at once."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Failure:
    code: str
    message: str
    status: int
    hint: str | None


class PeerFailed(AbruzziError):
    """Another rank's error, as it is told to this one."""


class Peers:
    """One rank alone, or all of them: then all make it at once, and call `together` equally often."""

    def __init__(self, ranks: Ranks | None = None) -> None:
        self.rank, self.count = (ranks.rank, ranks.world_size) if ranks is not None else (0, 1)
        handle = dist.new_group(backend="gloo", timeout=_PATIENCE) if self.count > 1 else None
        self._handle = handle if isinstance(handle, dist.ProcessGroup) else None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def together(self, act: Callable[[], T]) -> list[T]:
        """What `act` returns on each rank, in their order. Where it raises, all raise: the rank itself its own error, the others one of the same code."""
        if self._handle is None:
            return [act()]
        found: Any = None
        own: Exception | None = None
        try:
            found = act()
        except Exception as error:
            own, found = error, _failure(error)
        told: list[Any] = [None] * self.count
        dist.all_gather_object(told, found, group=self._handle)
        if own is not None:
            raise own
        for rank, other in enumerate(told):
            if isinstance(other, _Failure):
                raise PeerFailed(other.code, f"Rank {rank}: {other.message}", hint=other.hint, status=other.status)
        return told


def _failure(error: Exception) -> _Failure:
    if isinstance(error, AbruzziError):
        return _Failure(error.code, error.message, error.status, error.hint)
    return _Failure("save_failed", f"{type(error).__name__}: {error}", 503, None)
