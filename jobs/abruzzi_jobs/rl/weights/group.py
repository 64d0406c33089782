"""A group that updates together: who is in it, what they tell each other, and what happens when one of them fails.

Whatever fails on one member is told to all, and every member raises one exception that has both sides in it. A group in which an update has failed is
not used again: its members form a new one (without the dead), which takes milliseconds.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.rl.weights.mesh import Mesh, Message

GRACE_SECONDS = 2.0
"""That a member which failed waits for the others' side of it."""

_FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong on one member. `place`: what it was doing, such as `reload of bucket 7`."""

    rank: int
    place: str
    message: str
    follows: bool = False
    """Only because another had failed."""

    def __str__(self) -> str:
        return f"rank {self.rank}, {self.place}: {self.message}"


class WeightUpdateFailed(AbruzziError):
    """All sides of one failed update; the causes come first."""

    def __init__(self, faults: Sequence[Fault], *, serving: int | None) -> None:
        self.faults = tuple(sorted(faults, key=lambda fault: (fault.follows, fault.rank)))
        causes = [fault for fault in self.faults if not fault.follows] or list(self.faults)
        kept = "This process serves none" if serving is None else f"This process serves version {serving}"
        super().__init__(
            "weight_update_failed",
            f"The weights were not updated: {'; '.join(map(str, causes))}. {kept}.",
            hint="Form a new group without the members that are gone, and update again.",
            status=503,
            errors=[
                {"rank": f.rank, "place": f.place, "message": f.message, "follows": f.follows} for f in self.faults
            ],
        )


class _Stopped(Exception):
    """Another member's fault reached this one."""


class Group:
    """`rank` of `size` members. One update at a time; `place` is where this member is, for the others to read when it fails."""

    def __init__(self, mesh: Mesh) -> None:
        self.rank, self.size = mesh.rank, mesh.size
        self.place = "before the update"
        self.closed = False
        self._mesh = mesh
        self._deadline = float("inf")
        self._got: dict[tuple[str, int], dict[int, Message]] = {}
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    @classmethod
    def alone(cls) -> Group:
        """Trainer and engine in one process."""
        return cls(Mesh(0, {}))

    @classmethod
    def join(
        cls,
        rank: int,
        addresses: Sequence[str],
        *,
        token: str = "",
        seconds: float = 60.0,
        listener: socket.socket | None = None,
    ) -> Group:
        """As `Mesh.join`. Raises TimeoutError that names who has not come within `seconds`."""
        deadline = time.monotonic() + seconds
        return cls(Mesh.join(rank, addresses, token=token, deadline=deadline, listener=listener))

    @property
    def others(self) -> tuple[int, ...]:
        return tuple(rank for rank in range(self.size) if rank != self.rank)

    @property
    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def begin(self, seconds: float) -> None:
        """From now on every wait ends by then."""
        if self.closed:
            raise ValueError("the group has failed or was closed; form a new one")
        self._deadline = time.monotonic() + seconds

    def tell(self, kind: str, number: int, ranks: Sequence[int] | None = None, **facts: Any) -> None:
        self._mesh.tell({"kind": kind, "number": number, **facts}, ranks)

    def expect(self, kind: str, number: int, ranks: Collection[int] | None = None) -> dict[int, Message]:
        """The message of this kind and number from each of these (or all others), which are taken. Raises what ends the update."""
        wanted = set(self.others if ranks is None else ranks) - {self.rank}
        found = self._got.setdefault((kind, number), {})
        self._read()
        self.check(())
        while missing := wanted - found.keys():
            self.check(missing)
            if self.seconds_left <= 0:
                raise TimeoutError(f"no {kind!r} from {_ranks(missing)} within the deadline")
            self.listen(self.seconds_left)
        del self._got[kind, number]
        return {rank: found[rank] for rank in wanted}

    def listen(self, seconds: float) -> None:
        """To what the others say, at most so long."""
        self._mesh.wait(seconds)
        self._read()

    def check(self, awaited: Collection[int]) -> None:
        """Raises where somebody has failed, or one who is awaited is gone."""
        if self._faults:
            raise _Stopped(f"stopped, for {self._faults[0]}")
        if gone := self._mesh.lost & set(awaited):
            raise ConnectionError(f"{_ranks(gone)} {'is' if len(gone) == 1 else 'are'} gone (the process ended)")

    def report(self, error: BaseException, *, place: str | None = None) -> None:
        """Tell the others what happened here; once."""
        with self._lock:
            if any(fault.rank == self.rank for fault in self._faults):
                return
            follows = isinstance(error, _Stopped)
            text = " ".join(str(error).split())[:2000] or type(error).__name__
            own = Fault(self.rank, place or self.place, text, follows)
            self._faults.append(own)
        self._mesh.tell({"kind": _FAULT, "place": own.place, "message": own.message, "follows": own.follows})

    def failed(self, error: BaseException) -> list[Fault]:
        """The end of this group: what happened here, and what the others say within the grace time."""
        self.report(error)
        end = time.monotonic() + GRACE_SECONDS
        while not self._others_known() and (left := end - time.monotonic()) > 0:
            self.listen(left)
        self._mesh.flush(GRACE_SECONDS)
        gone = [
            Fault(rank, "unknown", "gone (its process ended)")
            for rank in sorted(self._mesh.lost - {fault.rank for fault in self._faults})
        ]
        faults = [*self._faults, *gone]
        self.close()
        return faults

    def close(self) -> None:
        """Leaves; the others see it as gone."""
        if not self.closed:
            self.closed = True
            self._mesh.close()

    def settle(self) -> None:
        """At the end of an update: what was told is on its way."""
        self._mesh.flush(max(0.0, self.seconds_left))

    def _others_known(self) -> bool:
        return set(self.others) <= self._mesh.lost | {fault.rank for fault in self._faults}

    def _read(self) -> None:
        for rank, message in self._mesh.take():
            if message["kind"] == _FAULT:
                self._faults.append(Fault(rank, message["place"], message["message"], message["follows"]))
            else:
                self._got.setdefault((message["kind"], message["number"]), {})[rank] = message


def _ranks(ranks: Collection[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, sorted(ranks)))}"
