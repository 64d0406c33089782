"""Ends a worker whose consumer has gone silent, so that its supervisor (Compose, Kubernetes) starts it again.

Celery's consumer can stop taking messages for ever after a lost connection to Redis, with the process alive and healthy to look at
(celery issues 8030, 8091, 8384, 8990, 10205, 10302). The sweeper rings every two seconds, so silence with a full queue is proof.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from typing import Any

import redis
from celery.signals import task_received

logger = logging.getLogger(__name__)
SILENT_SECONDS = 60.0
LOOK_SECONDS = 5.0


class Watchdog:
    """`is_stuck` is asked at every look: with the queue's length, or None while Redis does not answer."""

    def __init__(self, *, silent_seconds: float = SILENT_SECONDS, now: float) -> None:
        self._silent_seconds = silent_seconds
        self._waiting_since: float | None = None
        self._heard_at = now

    def heard(self, now: float) -> None:
        """The consumer took a message."""
        self._heard_at = now

    def is_stuck(self, queued: int | None, now: float) -> bool:
        """Whether messages have waited for longer than the limit, seen at every look, while none was taken. A Redis that is away is no proof."""
        if not queued:
            self._waiting_since = None
            return False
        self._waiting_since = self._waiting_since or now
        return now - max(self._waiting_since, self._heard_at) > self._silent_seconds


def start(redis_url: str, queue: str) -> None:
    """In the worker's main process, which is where its consumer lives."""
    dog = Watchdog(now=time.monotonic())

    def heard(**_: Any) -> None:
        dog.heard(time.monotonic())

    task_received.connect(heard, weak=False)
    threading.Thread(target=_look, args=(dog, redis_url, queue), name="watchdog", daemon=True).start()


def _look(dog: Watchdog, redis_url: str, queue: str) -> None:
    connection = redis.Redis.from_url(redis_url, socket_timeout=3.0, socket_connect_timeout=3.0)
    while True:
        time.sleep(LOOK_SECONDS)
        try:
            queued: int | None = int(connection.llen(queue))  # type: ignore[arg-type]
        except redis.RedisError:
            queued = None
        if dog.is_stuck(queued, time.monotonic()):
            logger.error(
                "%s messages wait and none was taken for %.0f s: this worker ends, to be started again",
                queued,
                SILENT_SECONDS,
            )
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(LOOK_SECONDS)
            os._exit(75)
