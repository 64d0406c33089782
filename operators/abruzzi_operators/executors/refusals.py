"""Why an attempt's pods can't be made. Kubernetes tells that in events only: the status of a Job whose pods a webhook, a quota or Pod Security
refuses says nothing. Without the right to read events nothing is known, and nothing else is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Self

from abruzzi_operators.executors.ledger import Ledger
from abruzzi_operators.kubernetes import projections
from abruzzi_operators.kubernetes.api import Api
from abruzzi_operators.kubernetes.reflector import Key, Reflector, Tuning
from abruzzi_operators.kubernetes.resources import EVENTS, Object

SELECTOR = "type=Warning,involvedObject.kind!=Pod"
"""Warnings about pods are many (each full node, each slow image), and pods say of themselves why they wait."""
PREFIX = "abruzzi-"
JOB_SET_CHILD = "-node-0"
"""Ends the name of the Job that JobSet makes for a TrainJob."""
TOLD_CHARACTERS = 500


class Refusals:
    """`async with` it while its watch is to run."""

    def __init__(self, api: Api, namespace: str, ledger: Ledger, *, tuning: Tuning | None) -> None:
        self._ledger = ledger
        self._reflector: Reflector[Object] = Reflector(
            api, EVENTS, project=projections.event, namespace=namespace, field_selector=SELECTOR, tuning=tuning
        )
        self._objects: dict[Key, str] = {}
        self._said: dict[str, str] = {}
        """{name of the object whose pods are refused: the newest word about it}"""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._reflector.__aenter__()
        self._task = asyncio.create_task(self._keep(), name="refusals of pods")
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await self._reflector.__aexit__(*error)

    def word(self, workload: Object | None) -> str | None:
        """One that is not true any more stays as long as its event: ask only about a workload that lacks pods."""
        if workload is None:
            return None
        name = workload["metadata"]["name"]
        ray_cluster = (workload.get("status") or {}).get("rayClusterName")
        names = (name, f"{name}{JOB_SET_CHILD}", ray_cluster)
        return next((self._said[each] for each in names if each in self._said), None)

    async def _keep(self) -> None:
        subscription = self._reflector.subscribe()
        while True:
            self._take(await subscription.changed())

    def _take(self, keys: Iterable[Key]) -> None:
        for key in keys:
            entry = self._reflector.entries.get(key)
            if entry is None:
                name = self._objects.pop(key, "")
                if name not in self._objects.values():  # else there is a newer word about it
                    self._said.pop(name, None)
            elif is_refusal(entry.value.get("reason") or ""):
                name = entry.value["involvedObject"]["name"]
                self._objects[key] = name
                self._said[name] = told(entry.value.get("message") or "")
                self._ledger.mark(each for each in _attempts(name) if self._ledger.workload(each) is not None)


def is_refusal(reason: str) -> bool:
    """`FailedCreate` of Jobs, `FailedCreatePod` of Kubeflow, `FailedToCreateHeadPod` of KubeRay."""
    return reason.startswith("Failed") and "Create" in reason


def told(message: str) -> str:
    return " ".join(message.removeprefix("Error creating: ").split())[:TOLD_CHARACTERS].rstrip(".")


def _attempts(name: str) -> set[str]:
    """Whose it may be: the workload's own name, or that of what its operator has made for it."""
    names = {name, name.removesuffix(JOB_SET_CHILD), name.rpartition("-")[0]}
    return {each.removeprefix(PREFIX) for each in names}
