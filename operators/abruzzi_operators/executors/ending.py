"""The end of an attempt's objects: workload and pods are deleted, and the apiserver says when nothing of them lives.

An operator may still be about to make pods when its workload is deleted. While it is only told to stop, the workload stays until its pods are
gone (foreground), so that whatever comes late goes with it. Once it is removed, the fence refuses pods as it refuses workloads: then nothing
has to be waited for but the pods that there are, and the rest (services, endpoints: hundreds for a large gang) is collected behind our back.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from contextlib import suppress

from abruzzi_operators.executors.node_words import NodeWords
from abruzzi_operators.executors.pod_ends import is_over, lost_word
from abruzzi_operators.kubernetes import projections
from abruzzi_operators.kubernetes.api import Api
from abruzzi_operators.kubernetes.errors import Conflict, NotFound
from abruzzi_operators.kubernetes.resources import PODS, Object, Resource
from abruzzi_operators.renderers.names import LABEL_ATTEMPT

AT_ONCE = 16
"""Deletions of pods on their way together, of all attempts: as many connections stay open."""

Told = dict[str, int]
"""By the pod's uid: the shortest grace that it was given, in seconds."""


class Ending:
    def __init__(self, api: Api, namespace: str, words: NodeWords, *, now: Callable[[], float]) -> None:
        self._api, self._namespace, self._words, self._now = api, namespace, words, now
        self._places = asyncio.Semaphore(AT_ONCE)

    def is_lost(self, pod: Object) -> bool:
        return lost_word(pod, self._words, self._now()) is not None

    async def delete_workload(self, resource: Resource, thing: Object, *, foreground: bool) -> None:
        with suppress(NotFound, Conflict):
            await self._api.delete(
                resource,
                thing["metadata"]["name"],
                namespace=self._namespace,
                uid=thing["metadata"]["uid"],
                propagation="Foreground" if foreground else "Background",
            )

    async def delete_pods(self, pods: Iterable[Object], *, grace_seconds: float, told: Told | None = None) -> None:
        """Whole seconds, one at least: with zero the object would go before the process. On a lost node that is all that can be done.

        `told`: those of earlier calls, which are told again only where they get less time now.
        """
        told = {} if told is None else told

        async def delete(pod: Object) -> None:
            metadata = pod["metadata"]
            grace = 0 if self.is_lost(pod) else max(1, math.ceil(grace_seconds))
            if grace >= told.get(metadata["uid"], math.inf):
                return
            with suppress(NotFound, Conflict):
                async with self._places:
                    await self._api.delete(
                        PODS, metadata["name"], namespace=self._namespace, uid=metadata["uid"], grace_seconds=grace
                    )
            told[metadata["uid"]] = grace

        failures = [
            found
            for found in await asyncio.gather(*(delete(pod) for pod in pods), return_exceptions=True)
            if found is not None
        ]
        if failures:
            raise failures[0]

    async def living_pods(self, attempt_id: str) -> list[Object]:
        """By the apiserver's own word, which a watch may not have brought yet."""
        found = await self._api.list(PODS, namespace=self._namespace, label_selector=f"{LABEL_ATTEMPT}={attempt_id}")
        return [pod for pod in map(projections.pod, found) if not is_over(pod)]
