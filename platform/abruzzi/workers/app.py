"""The Celery app: `celery -A abruzzi.workers.app worker`, and `… beat` for the sweeper's clock.

Redis is a doorbell. A message in it carries nothing but "look": what there is to do, and when, are rows in Postgres, and every task claims its
work there. So FLUSHALL, a lost or a doubled message change nothing but the moment: the sweeper, rung by beat every two seconds, asks Postgres
what is due and rings again. Rings expire, so that none pile up while workers are away. No countdowns, no retries, no results in the broker.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

from celery import Celery
from celery.signals import worker_init

from abruzzi.kit.ground import Budget, Ground, open_ground
from abruzzi.kit.settings import Settings
from abruzzi.kit.tables import REGISTERED
from abruzzi.notifications import tasks as notifications
from abruzzi.workers import steps, watchdog

assert REGISTERED  # importing the module registers every noun's tables, which rows refer to

SWEEP_SECONDS = 2.0
RING_EXPIRES_SECONDS = 10.0
STEP_BUDGET_SECONDS, STEP_LIMIT_SECONDS = 15.0, 30.0
"""A step stops by itself at its budget, between two items; the limit kills the process of one that does not."""
LONG_LIMIT_SECONDS = 300.0
"""Of exports and chores, whose one item may be large."""
DELIVERERS, DELIVERIES_EACH = 4, 20
QUEUE = "abruzzi"


def create_app(settings: Settings) -> Celery:
    made = Celery("abruzzi", broker=settings.require("redis_url"), set_as_current=False)
    made.conf.update(
        task_default_queue=QUEUE,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_time_limit=STEP_LIMIT_SECONDS,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_max_tasks_per_child=1000,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # Ten times the longest task: nothing is ever delivered twice for having taken long.
        broker_transport_options={"visibility_timeout": 10 * LONG_LIMIT_SECONDS, "health_check_interval": 10},
        redis_socket_keepalive=True,
        redis_retry_on_timeout=True,
        timezone="UTC",
        beat_schedule={
            "sweep": {"task": "abruzzi.sweep", "schedule": SWEEP_SECONDS, "options": {"expires": SWEEP_SECONDS * 2}}
        },
        beat_max_loop_interval=SWEEP_SECONDS,
    )
    return made


settings = Settings()
app = create_app(settings)


@app.task(name="abruzzi.sweep")
def sweep() -> None:
    """Ask Postgres what is due and ring for it."""
    due = _run(steps.look)
    if due.messages:
        messages.apply_async(expires=RING_EXPIRES_SECONDS)
    for _ in range(min(DELIVERERS, math.ceil(due.deliveries / DELIVERIES_EACH))):
        deliveries.apply_async(expires=RING_EXPIRES_SECONDS)
    for name in due.chores:
        chore.apply_async((name,), expires=RING_EXPIRES_SECONDS)


@app.task(name="abruzzi.messages", time_limit=LONG_LIMIT_SECONDS)
def messages() -> None:
    outcome = _run(lambda ground: steps.handle_messages(ground, Budget(STEP_BUDGET_SECONDS)))
    if outcome.facts["handled"]:
        deliveries.apply_async(expires=RING_EXPIRES_SECONDS)


@app.task(name="abruzzi.deliveries")
def deliveries() -> None:
    _run(lambda ground: notifications.deliver(ground, Budget(STEP_BUDGET_SECONDS)))


@app.task(name="abruzzi.chore", time_limit=LONG_LIMIT_SECONDS)
def chore(name: str) -> None:
    _run(lambda ground: steps.run_chore(ground, name))


@worker_init.connect
def _watch(**_: Any) -> None:
    watchdog.start(settings.require("redis_url"), QUEUE)


def _run(step: Callable[[Ground], Awaitable[Any]]) -> Any:
    async def work() -> Any:
        async with open_ground(settings) as ground:
            return await step(ground)

    return asyncio.run(work())
