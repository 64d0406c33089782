"""`abruzzi-controller`: the controller over Postgres and an executor: processes of this machine, or a cluster (ABRUZZI_EXECUTOR). Settings come from the environment (abruzzi.kit.settings)."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from contextlib import AsyncExitStack

import psycopg

from abruzzi.contracts.stage import StageSpec
from abruzzi.engine.ports import Executor
from abruzzi.events import service as events
from abruzzi.gauges.exposition import expose
from abruzzi.kit.clock import Clock, DatabaseClock
from abruzzi.kit.database_time import keep_time
from abruzzi.kit.db import Sessions, connect_arguments, create_engine, create_sessions, transaction
from abruzzi.kit.ground import Ground
from abruzzi.kit.process import hide_environment
from abruzzi.kit.settings import Settings
from abruzzi.runs import ownership
from abruzzi.runs.run_store import PostgresRunStore
from abruzzi.store import open_store
from abruzzi.workers.dispatcher import dispatch
from abruzzi_operators.controller import fate
from abruzzi_operators.controller.controller import Controller, ControllerConfig
from abruzzi_operators.controller.hearing import Hearing
from abruzzi_operators.controller.this_machine import capacity_of_machine, report_this_machine
from abruzzi_operators.executors.local import LocalExecutor

logger = logging.getLogger("abruzzi.controller")
_RECONNECT_SECONDS = 0.5
_CONNECTIONS = 4
"""To Postgres, with which all runs in hand make do: the transactions of a controller take milliseconds, and where processors are short those of
people who wait for an answer come first."""


def main() -> None:
    hide_environment()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line a call would bury what the controller says
    asyncio.run(serve(Settings()))


async def serve(settings: Settings) -> None:
    """Until SIGTERM or SIGINT. Workloads are left running, and whoever comes next adopts them; unless they end with this process, and so
    are asked to save first."""
    url = settings.require("controller_database_url")
    engine = create_engine(url, pool_size=_CONNECTIONS, overflow=0)
    sessions = create_sessions(engine)
    clock = DatabaseClock()
    store_config = settings.store_config()
    objects = open_store(store_config)
    store = PostgresRunStore(sessions, objects, store_config, clock)
    api_url = settings.url or f"http://{settings.host}:{settings.port}"
    config = ControllerConfig(owner=f"{socket.gethostname()}:{os.getpid()}:{time.time_ns():x}")
    asked, hurry, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, lambda: (hurry if asked.is_set() else asked).set())
    issue = _issuer(sessions, clock)
    hearing = Hearing(api_url, now=clock.seconds)
    opening = AsyncExitStack()
    executor: Executor
    changed = None
    if settings.executor == "kubernetes":
        # Seconds of imports that a laptop needs not.
        from abruzzi_operators.controller.cluster import open_kubernetes_executor

        executor = on_cluster = await opening.enter_async_context(
            open_kubernetes_executor(
                settings,
                sessions=sessions,
                objects=objects,
                clock=clock,
                api_url=api_url,
                issue_token=issue,
                owner=config.owner,
                heard_since=lambda: hearing.since,
            )
        )
        changed = on_cluster.changed
    else:
        capacity = capacity_of_machine(settings.parallel_stages)
        executor = LocalExecutor(settings.home / "attempts", capacity=capacity, api_url=api_url, issue_token=issue)
    controller = Controller(
        store, executor, now=clock.seconds, config=config, heard_since=lambda: hearing.since, changed=changed
    )
    beside = (keep_time(sessions, clock), _ring(url, controller.doorbell), hearing.run())
    helpers = [asyncio.create_task(work) for work in beside]
    ends_with_us = settings.stages_end_with_controller and isinstance(executor, LocalExecutor)
    if ends_with_us:
        helpers.append(asyncio.create_task(fate.resume_runs(sessions, clock)))
    if isinstance(executor, LocalExecutor):
        helpers.append(asyncio.create_task(report_this_machine(sessions, clock, executor.machine)))
    if settings.redis_url is None:
        # No broker, no Celery workers: the side work is done here.
        helpers.append(asyncio.create_task(dispatch(Ground(sessions, objects, settings, clock))))
    if settings.metrics_port is not None:
        helpers.append(
            asyncio.create_task(expose(sessions, clock, port=settings.metrics_port, default_pool=settings.default_pool))
        )
    logger.info("controller %s is looking for runs", config.owner)
    try:
        running, told = asyncio.create_task(controller.run(stop)), asyncio.create_task(asked.wait())
        await asyncio.wait([running, told], return_when=asyncio.FIRST_COMPLETED)
        if ends_with_us and not running.done():
            await fate.save_runs(sessions, clock, settings.home / "attempts", hurry=hurry)
        stop.set()
        await running
    finally:
        for helper in helpers:
            helper.cancel()
        await opening.aclose()
        await engine.dispose()


def _issuer(sessions: Sessions, clock: Clock):  # type: ignore[no-untyped-def]
    async def issue(spec: StageSpec) -> str:
        async with transaction(sessions) as session:
            return await ownership.issue_token(session, spec.attempt_id, now=clock.now())

    return issue


async def _ring(url: str, doorbell: asyncio.Event) -> None:
    """LISTEN on a connection of its own. While it is down the controller polls: slower, never lost."""
    address = connect_arguments(url)
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(**address, autocommit=True) as connection:
                await connection.execute(f"LISTEN {events.CHANNEL_RUNS}")
                doorbell.set()
                async for _ in connection.notifies():
                    doorbell.set()
        except psycopg.Error as error:
            logger.warning("no doorbell (%s); polling", type(error).__name__)
        await asyncio.sleep(_RECONNECT_SECONDS)


if __name__ == "__main__":
    main()
