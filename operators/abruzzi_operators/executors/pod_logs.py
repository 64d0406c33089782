"""Logs of pods that hold no launcher of ours (`container` stages with an image of their own): read from the kubelet, kept like any rank's.

The kubelet keeps a container's newest 10 MiB. What was read is only counted, so a new controller reads from the start and the store of logs,
which knows each byte's offset, skips what it has.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from abruzzi_operators.executors.pod_ends import is_over, is_running, pod_index
from abruzzi_operators.kubernetes.api import Api
from abruzzi_operators.kubernetes.errors import Invalid, NotFound
from abruzzi_operators.renderers.names import ANNOTATION_FOREIGN, LABEL_ATTEMPT

KeepLog = Callable[[str, int, bytes], Awaitable[None]]
"""(attempt, rank, everything that the rank has printed so far)"""


class PodLogs:
    def __init__(self, api: Api, namespace: str, keep: KeepLog) -> None:
        self._api, self._namespace, self._keep = api, namespace, keep
        self._known: dict[str, int] = {}
        """Bytes by the pod's uid."""

    async def collect(self, pod: Mapping[str, Any]) -> None:
        """What is new since last time. A pod whose node does not answer tells nothing; it is asked again."""
        metadata = pod["metadata"]
        if (metadata.get("annotations") or {}).get(ANNOTATION_FOREIGN) != "true":
            return
        if not is_running(pod) and not is_over(pod):
            return
        with suppress(NotFound, Invalid):  # gone, or its container has not printed yet
            text = await self._api.read_log(self._namespace, metadata["name"])
            if len(text) != self._known.get(metadata["uid"], 0):
                await self._keep(metadata["labels"][LABEL_ATTEMPT], pod_index(pod), text)
                self._known[metadata["uid"]] = len(text)

    def forget(self, pod: Mapping[str, Any]) -> None:
        self._known.pop(pod["metadata"]["uid"], None)
