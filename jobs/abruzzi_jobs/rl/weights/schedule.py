"""In which order a device's copy engines work: pure. Both pipelines of paper appendix G, over three equal buffers: one that the host copies into, and
two that a broadcast fills and the inference engine reads in turn.

A tick is what runs at the same time. It begins with the owner of `broadcast` handing the bucket over from its copy-in buffer to exchange buffer
`broadcast % 2`, so the next bucket may be copied in while this one is broadcast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from abruzzi_jobs.rl.weights.plan import ALIGNMENT, Plan

Pipeline = Literal["direct", "two-stage", "three-stage"]
"""`direct`: the registered copy is where the exchange buffers are (main memory), so nothing is copied in."""

BUFFERS = 3
EXCHANGE_BUFFERS = 2


@dataclass(frozen=True, slots=True)
class Tick:
    """Indices of buckets."""

    copy_in: tuple[int, ...] = ()
    """Host to device, at most one an owner."""
    broadcast: int | None = None
    reload: int | None = None


def choose(*, device_is_host: bool, engines_share_bus: bool) -> Pipeline:
    """Two stages are the default on devices: on H800 copy-in and broadcast compete for PCIe, and three stages serialise (appendix G)."""
    if device_is_host:
        return "direct"
    return "two-stage" if engines_share_bus else "three-stage"


def schedule(plan: Plan, pipeline: Pipeline) -> tuple[Tick, ...]:
    """Every bucket is copied in (unless `direct`), broadcast and reloaded once, in this order."""
    if pipeline == "direct":
        return _overlapped([()] * len(plan.buckets))
    if pipeline == "two-stage":
        return _two_stages(plan)
    firsts: dict[int, int] = {}
    for bucket in plan.buckets:
        firsts.setdefault(bucket.owner, bucket.index)
    ahead = [_copied_by_next(plan, bucket.index) for bucket in plan.buckets]
    return (*([Tick(copy_in=tuple(firsts.values()))] if firsts else []), *_overlapped(ahead))


def _copied_by_next(plan: Plan, index: int) -> tuple[int, ...]:
    """While bucket `index` is broadcast its owner's buffer is free again: its next bucket."""
    owner = plan.buckets[index].owner
    following = (bucket.index for bucket in plan.buckets[index + 1 :] if bucket.owner == owner)
    return tuple(index for index in (next(following, None),) if index is not None)


def _overlapped(copied_in: list[tuple[int, ...]]) -> tuple[Tick, ...]:
    """Broadcast of each bucket beside the reload of the one before it."""
    count = len(copied_in)
    return tuple(
        Tick(
            copy_in=copied_in[index] if index < count else (),
            broadcast=index if index < count else None,
            reload=index - 1 if index else None,
        )
        for index in range(count + 1 if count else 0)
    )


def _two_stages(plan: Plan) -> tuple[Tick, ...]:
    """Rounds: every owner copies one bucket in, at once and with nothing beside it on the bus; then broadcasts and reloads overlap."""
    ticks: list[Tick] = []
    waiting: int | None = None
    """Broadcast, not reloaded yet."""
    rounds: list[list[int]] = []
    seen: set[int] = set()
    for bucket in plan.buckets:
        if not rounds or bucket.owner in seen:
            rounds.append([])
            seen = set()
        rounds[-1].append(bucket.index)
        seen.add(bucket.owner)
    for indices in rounds:
        ticks.append(Tick(copy_in=tuple(indices), reload=waiting))  # a reload stays on the device, off the bus
        waiting = None
        for index in indices:
            ticks.append(Tick(broadcast=index, reload=waiting))
            waiting = index
    if waiting is not None:
        ticks.append(Tick(reload=waiting))
    return tuple(ticks)


def makespan(
    ticks: tuple[Tick, ...], plan: Plan, bytes_per_second: Mapping[str, float], *, engines_share_bus: bool
) -> float:
    """Seconds that a schedule takes, by rates of `copy_in`, `broadcast` and `reload`. On a shared bus copy-in and broadcast follow each other."""
    total = 0.0
    for tick in ticks:
        copy_in = max((plan.buckets[index].nbytes for index in tick.copy_in), default=0) / bytes_per_second["copy_in"]
        broadcast = 0 if tick.broadcast is None else plan.buckets[tick.broadcast].nbytes / bytes_per_second["broadcast"]
        reload = 0 if tick.reload is None else plan.buckets[tick.reload].nbytes / bytes_per_second["reload"]
        total += max(copy_in + broadcast if engines_share_bus else max(copy_in, broadcast), reload)
    return total


def bucket_bytes_for(free_bytes: int, *, fraction: float = 0.9, limit_bytes: int = 8 << 30) -> int:
    """What each of three equal buffers may have of a device's free memory: at most `limit_bytes`. Raises ValueError where nothing is left.

    All ranks take the smallest answer among them.
    """
    each = int(min(free_bytes * fraction / BUFFERS, limit_bytes)) // ALIGNMENT * ALIGNMENT
    if each < ALIGNMENT:
        raise ValueError(
            f"{free_bytes} bytes of free device memory leave no room for {BUFFERS} buffers; let the engine sleep first"
        )
    return each
