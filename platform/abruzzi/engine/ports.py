"""The two doors of the controller: a store of runs and an executor. Postgres and the local executor stand behind them in
production, memory and a seed in the simulation; one contract suite a door (tests/simulation/*_contract.py) holds both sides to the same
behaviour."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from abruzzi.contracts.stage import StageSpec
from abruzzi.engine.actions import Write
from abruzzi.engine.view import RunView, Seen


class StaleLease(Exception):
    """Another controller took the run over: drop everything about it."""


class VersionConflict(Exception):
    """The run changed since it was read: read and decide again."""


class IllegalWrite(Exception):
    """The write contradicts what is recorded: an ended thing would change, an attempt exist twice, an epoch not grow. A fault of whoever decided."""


class SpecConflict(Exception):
    """A workload of that name exists with another spec: a fault to be shown, never adopted."""


@dataclass(frozen=True, slots=True)
class Lease:
    run_id: str
    token: int
    """Grows with every lease of this run; each write checks it (fencing)."""
    owner: str
    expires_at: float


class RunStore(Protocol):
    async def lease(self, owner: str, *, limit: int, ttl_seconds: float) -> Sequence[Lease]:
        """Runs that are due (wake_at passed, or rung, or never given back) and not leased by another, the longest due first; SKIP LOCKED."""
        ...

    async def renew(self, lease: Lease, *, ttl_seconds: float) -> Lease:
        """Raises StaleLease, also for a lease that was given back."""
        ...

    async def release(self, lease: Lease, *, wake_at: float | None) -> None:
        """Give the run back; `wake_at` None: only a ring wakes it. A stale lease is ignored."""
        ...

    async def wake(self, run_ids: Collection[str]) -> None:
        """They are due before all that only waits for its date; one that is leased is so when it is given back. Unknown ids are ignored."""
        ...

    async def load(self, run_id: str) -> RunView: ...

    async def apply(self, lease: Lease, expected_version: int, writes: Sequence[Write]) -> RunView:
        """All writes, their event rows and outbox rows in one transaction; all or nothing. Returns the run as it is then.

        Raises StaleLease, VersionConflict, IllegalWrite, NotFound. Repeating a write that is done changes nothing and tells nobody twice.
        """
        ...

    async def spec(self, attempt_id: str) -> StageSpec:
        """The resolved spec of a committed attempt: inputs bound, resume picked (the newest manifest whose digests verify) and recorded."""
        ...

    async def collect_artifacts(self, lease: Lease, attempt_id: str) -> int:
        """Register manifests found in the object store under the attempt's epoch. Idempotent. Returns how many were new."""
        ...


class Executor(Protocol):
    async def create(self, spec: StageSpec, *, excluded_nodes: Sequence[str] = ()) -> None:
        """Idempotent by attempt id and spec digest; nothing happens for an attempt that was removed. Raises SpecConflict.

        `excluded_nodes` are avoided as long as another node will do: an attempt on a doubtful node is better than one that waits for ever.
        """
        ...

    async def observe(self, attempt_ids: Sequence[str]) -> Mapping[str, Seen]:
        """One Seen for each id; GONE only when it is certain that no workload exists."""
        ...

    async def stop(self, attempt_id: str, *, grace_seconds: float) -> None: ...

    async def dump_stacks(self, attempt_id: str, rank: int) -> None: ...

    async def remove(self, attempt_id: str) -> None:
        """Ship what is left of the logs and forget the workload. Idempotent."""
        ...

    async def list_attempts(self) -> Sequence[str]:
        """Every workload that exists here, for the collector of orphans."""
        ...
