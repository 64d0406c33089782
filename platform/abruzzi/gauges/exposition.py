"""Prometheus' /metrics of a process that is not the API: its own counters, and the gauges read from Postgres now and then."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence

from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from abruzzi.gauges import service
from abruzzi.kit.clock import Clock
from abruzzi.kit.db import Sessions, transaction

logger = logging.getLogger(__name__)
READ_SECONDS = 5.0
"""Each reading counts over whole tables: milliseconds for thousands of runs."""


class StateCollector(Collector):
    """Serves the last reading, and when it was made: a reading that is old shows that Postgres is away."""

    def __init__(self) -> None:
        self._families: Sequence[service.Family] = ()
        self._read_at = 0.0

    def replace(self, families: Sequence[service.Family]) -> None:
        self._families, self._read_at = families, time.time()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for family in self._families:
            shown = GaugeMetricFamily(family.name, family.help, labels=family.labels)
            for labels, value in family.samples:
                shown.add_metric(labels, value)
            yield shown
        yield GaugeMetricFamily(
            "abruzzi_state_read_timestamp_seconds", "When the state was last read from Postgres", self._read_at
        )


async def expose(sessions: Sessions, clock: Clock, *, port: int, default_pool: str, host: str = "0.0.0.0") -> None:
    """Until it is cancelled."""
    collector = StateCollector()
    REGISTRY.register(collector)
    server, thread = start_http_server(port, addr=host)
    try:
        while True:
            try:
                async with transaction(sessions) as session:
                    collector.replace(await service.read(session, now=clock.now(), default_pool=default_pool))
            except Exception:
                logger.exception("cannot read the state for /metrics; trying again")
            await asyncio.sleep(READ_SECONDS)
    finally:
        server.shutdown()
        thread.join()
        REGISTRY.unregister(collector)
