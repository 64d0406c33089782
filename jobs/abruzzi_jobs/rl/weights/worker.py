"""One member of a checkpoint engine: registers what it has, takes part in updates, loads what arrives into its engine (paper 3.3.2).

An update is atomic in every member: checksums are compared, all members say that they have everything, and only then engines change their version.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from abruzzi_jobs.rl.weights.group import Group, WeightUpdateFailed
from abruzzi_jobs.rl.weights.mesh import Message
from abruzzi_jobs.rl.weights.plan import ALIGNMENT, Parameter, Plan, Planner
from abruzzi_jobs.rl.weights.registered import Registered
from abruzzi_jobs.rl.weights.reload import Reloader, Sink, compare
from abruzzi_jobs.rl.weights.schedule import Tick, schedule
from abruzzi_jobs.rl.weights.transport import Traffic, Transport

BUCKET_BYTES = 8 << 20
"""On CPUs: what was copied is still in the processor's cache when its checksum is taken. bench/broadcast.py sweeps: buckets of 16 MiB and more take 1 to 13 % longer in
place, and 20 to 40 % through the ring; smaller ones wait more often. A ring of three fits into the 64 MiB that containers have by default. On GPUs
`schedule.bucket_bytes_for` the free memory."""
DEADLINE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class UpdateReport:
    version: int
    transport: str
    pipeline: str
    size_bytes: int
    buckets: int
    plan_cached: bool
    loaded: bool
    """False: without an engine here, or it had this version already."""
    seconds: dict[str, float]
    """By phase: `plan` (with the wait for the others), `broadcast` (with reloads), `verify`; they sum to `total`."""

    @property
    def bytes_per_second(self) -> float:
        """Of broadcast and reload together."""
        return self.size_bytes / max(self.seconds["broadcast"], 1e-9)

    def metrics(self) -> dict[str, float]:
        return {
            **{f"weights/{phase}_seconds": seconds for phase, seconds in self.seconds.items()},
            "weights/bytes": float(self.size_bytes),
            "weights/bytes_per_second": self.bytes_per_second,
        }


class CheckpointWorker:
    """Used by one thread. `sink`: the engine beside it, or None where there is none (a trainer whose engines are in other processes)."""

    def __init__(
        self,
        group: Group,
        transport: Transport,
        *,
        sink: Sink | None = None,
        bucket_bytes: int = BUCKET_BYTES,
        deadline_seconds: float = DEADLINE_SECONDS,
        interleave: bool = True,
    ) -> None:
        self.group = group
        self.registered = Registered(0, {}, copy=False)
        self._transport, self.sink = transport, sink
        self._bucket_bytes = -(-bucket_bytes // ALIGNMENT) * ALIGNMENT
        self._deadline_seconds = deadline_seconds
        self._planner = Planner(interleave=interleave)
        self._number = 0
        self._told_key = ""
        self._keys: dict[int, str] = {}
        self._parameters: dict[int, list[Parameter]] = {}
        self._room = 0

    def register(self, version: int, tensors: Mapping[str, Tensor], *, copy: bool = True) -> Registered:
        """What this member gives in the next update: a share of the parameters, or all of them; `copy` as in Registered.

        Versions only grow. Raises ValueError where this one does not.
        """
        if self.registered.flat and version < self.registered.version:
            raise ValueError(f"version {version} is older than {self.registered.version}, which is registered")
        self.registered = Registered(version, tensors, copy=copy)
        return self.registered

    def update(self) -> UpdateReport:
        """All members call it. Returns when every engine of the group serves the new version.

        Raises WeightUpdateFailed on every member that lives, within the deadline; engines then serve what they served before, and the group is closed.
        """
        self.group.begin(self._deadline_seconds)
        begun = _Begun()
        watchdog = threading.Timer(self._deadline_seconds, self.expire)
        watchdog.daemon = True
        watchdog.start()
        try:
            return self._update(begun)
        except Exception as error:
            faults = self.group.failed(error)
            if begun.sink is not None:
                begun.sink.abandon_update()
            self._transport.close()
            raise WeightUpdateFailed(faults, serving=None if self.sink is None else self.sink.version) from error
        except BaseException as error:
            self.group.report(error)
            self.close()
            raise
        finally:
            watchdog.cancel()

    def close(self) -> None:
        self._transport.close()
        self.group.close()

    def _update(self, begun: _Begun) -> UpdateReport:
        group, started = self.group, time.perf_counter()
        self._number += 1
        self._prepare()
        group.place = "planning"
        version, readers = self._offer()
        plan, cached = self._plan()
        ticks = schedule(plan, self._transport.pipeline)
        reloader = self._begin(version, plan, begun) if group.rank in readers else None
        planned = time.perf_counter()

        with contextlib.nullcontext() if reloader is None else contextlib.closing(reloader):
            group.place = "start of the broadcast"
            self._transport.start(Traffic(plan, self.registered, readers))
            for tick in ticks:
                self._run(tick, plan, reloader)
            broadcast = time.perf_counter()
            self._verify(plan, reloader)
        if begun.sink is not None:
            group.place = f"change to version {version}"
            begun.sink.finish_update(version)
            begun.sink = None
        group.place = f"end of the update to version {version}"
        group.tell("finished", self._number)
        group.expect("finished", self._number)
        group.settle()
        ended = time.perf_counter()
        seconds = {
            "plan": planned - started,
            "broadcast": broadcast - planned,
            "verify": ended - broadcast,
            "total": ended - started,
        }
        return UpdateReport(
            version, self._transport.name, self._transport.pipeline, plan.size_bytes, len(plan.buckets),
            cached, reloader is not None, seconds,
        )  # fmt: skip

    def _offer(self) -> tuple[int, frozenset[int]]:
        """What everybody has and serves: (version to come, ranks that load it). Shapes are told only where they are new."""
        group, own = self.group, self.registered
        serves = None if self.sink is None else self.sink.version
        facts: Message = {
            "version": own.version if own.flat else None,
            "serves": serves,
            "bucket_bytes": self._bucket_bytes,
            "key": own.key,
            "parameters": None if own.key == self._told_key else own.rows,
        }
        group.tell("offer", self._number, **facts)
        offers = {**group.expect("offer", self._number), group.rank: facts}
        self._told_key = own.key
        for rank, offer in offers.items():
            self._keys[rank] = offer["key"]
            if offer["parameters"] is not None:
                self._parameters[rank] = [Parameter.from_json(row, rank) for row in offer["parameters"]]
        self._bucket_bytes = min(offer["bucket_bytes"] for offer in offers.values())
        versions = {offer["version"] for offer in offers.values()} - {None}
        if len(versions) != 1:
            raise ValueError(
                f"members registered versions {sorted(versions)}" if versions else "no member has registered anything"
            )
        version = versions.pop()
        if serves is not None and serves > version:
            raise ValueError(f"version {version} is older than {serves}, which is served; versions only grow")
        behind = (rank for rank, offer in offers.items() if offer["serves"] is not None and offer["serves"] < version)
        return version, frozenset(behind)

    def _plan(self) -> tuple[Plan, bool]:
        made = self._planner.made
        plan = self._planner.plan(self._keys, self._parameters, self._bucket_bytes)
        room = min(self._bucket_bytes, -(-max((b.nbytes for b in plan.buckets), default=1) // ALIGNMENT) * ALIGNMENT)
        if room > self._room:
            self._transport.open(self.group, room)
            self._room = room
        return plan, self._planner.made == made

    def _begin(self, version: int, plan: Plan, begun: _Begun) -> Reloader:
        assert self.sink is not None
        self.sink.begin_update(version)
        begun.sink = self.sink
        return Reloader(plan, self.sink, self._saw)

    def _run(self, tick: Tick, plan: Plan, reloader: Reloader | None) -> None:
        group, transport = self.group, self._transport
        if tick.broadcast is not None:
            group.place = f"broadcast of bucket {tick.broadcast}"
            transport.begin(plan.buckets[tick.broadcast])
        if tick.copy_in:
            group.place = f"copy to the device of bucket {tick.copy_in[0]}"
            transport.copy_in([plan.buckets[index] for index in tick.copy_in])
        if tick.reload is not None:
            group.place = f"reload of bucket {tick.reload}"
            if reloader is not None:
                bucket = plan.buckets[tick.reload]
                reloader.load(bucket, self._arrived, stays=transport.stays(bucket))
            transport.release(plan.buckets[tick.reload])
        if tick.broadcast is not None:
            group.place = f"broadcast of bucket {tick.broadcast}"
            self._arrived = transport.end(plan.buckets[tick.broadcast])

    def _verify(self, plan: Plan, reloader: Reloader | None) -> None:
        """Nobody changes its version before everybody has everything."""
        group = self.group
        group.place = "verification"
        group.tell("sums", self._number, sums=self.registered.sums)
        told = group.expect("sums", self._number)
        if reloader is not None:
            sums = {name: value for message in told.values() for name, value in message["sums"].items()}
            compare(sums | self.registered.sums, reloader.sums)
        self._check()
        group.tell("complete", self._number)
        group.expect("complete", self._number)

    # What a kind of update may do besides

    def _prepare(self) -> None:
        """Before it has begun: the last moment to register something."""

    def _saw(self, parameter: Parameter, flat_N: Tensor) -> None:
        """A piece that has arrived, uint8; in the plan's order."""

    def _check(self) -> None:
        """Raises where what was seen must not be served."""

    def expire(self) -> None:
        """The watchdog: what blocks without a deadline of its own (an engine, a collective) is named to the others and aborted."""
        self.group.report(TimeoutError(f"not done after {self._deadline_seconds:g} s"))
        self._transport.abort()


class _Begun:
    """The sink whose update has begun and not ended."""

    sink: Sink | None = None
