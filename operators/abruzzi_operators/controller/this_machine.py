"""Where stages are processes of the controller's own machine, that machine is the platform's one node."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from abruzzi.contracts.node import NodeFacts, NodeGpus, NodeState
from abruzzi.contracts.pool import LOCAL, UNSEEN, Capacity
from abruzzi.kit.clock import Clock
from abruzzi.kit.db import DATABASE_ERRORS, Sessions, transaction
from abruzzi.nodes import keeping
from abruzzi.nodes.records import NodeRecord
from abruzzi.pools import service as pools
from abruzzi.runs import query
from abruzzi_operators.executors.machine import Machine, Use
from abruzzi_operators.launcher.node import usable_cores

logger = logging.getLogger(__name__)

REPORT_SECONDS = 15.0
KEPT = timedelta(minutes=10)
"""A machine of another name that has been silent for so long is none of ours any more."""
NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")


async def report_this_machine(sessions: Sessions, clock: Clock, machine: Machine) -> None:
    """Until cancelled. It is ready as long as somebody is there to say so."""
    name, began = socket.gethostname(), clock.now()
    while True:
        try:
            await report(sessions, name, machine, since=began, now=clock.now())
        except DATABASE_ERRORS as error:
            logger.warning(
                "this machine could not be reported (%s); again in %.0f s", type(error).__name__, REPORT_SECONDS
            )
        await asyncio.sleep(REPORT_SECONDS)


async def report(sessions: Sessions, name: str, machine: Machine, *, since: datetime, now: datetime) -> None:
    use = await asyncio.to_thread(machine.use)
    async with transaction(sessions) as session:
        attempts = await query.live_attempts(session)
        record = NodeRecord(
            name=name, kind="local", pool=LOCAL, state=NodeState.READY, reason="", since=since, heartbeat_at=now,
            facts=facts(), attempts={attempt: tuple(range(ranks)) for attempt, ranks in attempts.items()},
        )  # fmt: skip
        await keeping.record(session, [record], now=now)
        await pools.observe(session, LOCAL, pool_status(machine.capacity, use, now))
        await keeping.forget_other_machines(session, name, before=now - KEPT)


def pool_status(capacity: Capacity, use: Use, now: datetime) -> dict[str, Any]:
    told = f"Its stages share the {capacity.cpus:g} CPUs of this machine, and wait for each other in the order in which they came."
    return {
        **UNSEEN,
        "ready": True,
        "message": told,
        "used": {"cpu": use.cpus},
        "pending": use.waiting,
        "admitted": use.running,
        "capacity": capacity.model_dump(mode="json"),
        "observed_at": now.isoformat(),
    }


def capacity_of_machine(parallel_stages: int) -> Capacity:
    """`parallel_stages`: see Settings."""
    has = facts()
    cpus = float(usable_cores())
    return Capacity(cpus=cpus, memory=has.memory, gpus=has.gpus.total, share=cpus / parallel_stages)


def facts() -> NodeFacts:
    """Of this machine. GPUs are those that NVIDIA's driver knows; which of them stages use nobody counts here."""
    gpus = len(list(NVIDIA_GPUS.iterdir())) if NVIDIA_GPUS.is_dir() else 0
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return NodeFacts(cpus=float(os.cpu_count() or 1), memory=memory, gpus=NodeGpus(total=gpus, healthy=gpus, used=0))
