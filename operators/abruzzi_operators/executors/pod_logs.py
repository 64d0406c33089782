"""Logs of pods that hold no launcher of ours (`container` stages with an image of their own): read from the kubelet, kept like any rank's.

The kubelet keeps a container's newest 10 MiB. What was read is only counted, so a new controller reads from the start and the store of logs,
which knows each byte's offset, skips what it has.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from abruzzi_operators.executors.pod_ends import is_over, is_running, pod_index
from abruzzi_operators.kubernetes.api import Api
from abruzzi_operators.kubernetes.errors import ApiError, Invalid, NotFound
from abruzzi_operators.renderers.names import ANNOTATION_FOREIGN, LABEL_ATTEMPT

logger = logging.getLogger(__name__)

KeepLog = Callable[[str, int, bytes], Awaitable[None]]
"""(attempt, rank, everything that the rank has printed so far)"""


READ_SECONDS = (2.0, 30.0)
"""Between two readings of a pod's log: the shorter while it grows, doubling up to the longer while it does not."""
AT_ONCE = 8
LAST_WORD_SECONDS = 10.0
"""How long a node may take over the last reading. A dead one takes for ever."""


@dataclass(slots=True)
class _Reading:
    next_at: float
    pause: float
    known: int = 0
    """Bytes."""


class PodLogs:
    def __init__(self, api: Api, namespace: str, keep: KeepLog, *, now: Callable[[], float] = time.time) -> None:
        self._api, self._namespace, self._keep, self._now = api, namespace, keep, now
        self._readings: dict[str, _Reading] = {}
        """By the pod's uid."""
        self._places = asyncio.Semaphore(AT_ONCE)

    async def collect_all(self, pods: Iterable[Mapping[str, Any]]) -> None:
        """What is new in the logs whose turn it is. A node that does not answer is no reason not to read the others."""
        due = [pod for pod in pods if _is_readable(pod) and self._is_due(pod)]
        for found in await asyncio.gather(*(self._collect(pod) for pod in due), return_exceptions=True):
            if isinstance(found, ApiError):
                logger.info("a log cannot be read now: %s", found.message)
            elif found is not None:
                raise found

    async def collect_last(self, pods: Iterable[Mapping[str, Any]]) -> None:
        """What is left of an attempt whose pods are about to go. What cannot be read now will never be."""

        async def last(pod: Mapping[str, Any]) -> None:
            try:
                async with asyncio.timeout(LAST_WORD_SECONDS):
                    await self._collect(pod)
            except (ApiError, TimeoutError) as error:
                logger.warning("pod %s: the end of its log is lost (%s)", pod["metadata"]["name"], error)
            self._readings.pop(pod["metadata"]["uid"], None)

        await asyncio.gather(*(last(pod) for pod in pods if _is_readable(pod)))

    def _is_due(self, pod: Mapping[str, Any]) -> bool:
        now, least = self._now(), READ_SECONDS[0]
        return now >= self._readings.setdefault(pod["metadata"]["uid"], _Reading(now + least, least)).next_at

    async def _collect(self, pod: Mapping[str, Any]) -> None:
        metadata, (least, most) = pod["metadata"], READ_SECONDS
        reading = self._readings.setdefault(metadata["uid"], _Reading(self._now(), least))
        reading.pause = min(most, 2 * reading.pause)
        reading.next_at = self._now() + reading.pause
        with suppress(NotFound, Invalid):  # gone, or its container has not printed yet
            async with self._places:
                text = await self._api.read_log(self._namespace, metadata["name"])
            if len(text) != reading.known:
                await self._keep(metadata["labels"][LABEL_ATTEMPT], pod_index(pod), text)
                reading.known, reading.pause = len(text), least
                reading.next_at = self._now() + least


def _is_readable(pod: Mapping[str, Any]) -> bool:
    annotations = pod["metadata"].get("annotations") or {}
    return annotations.get(ANNOTATION_FOREIGN) == "true" and (is_running(pod) or is_over(pod))
