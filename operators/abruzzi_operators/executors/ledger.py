"""What the watches said, by attempt: its workload, its pods, and how pods ended that are gone. Memory of one controller; the cluster is the truth."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from abruzzi_operators.executors.pod_ends import PodEnd, is_over, pod_end, pod_index
from abruzzi_operators.kubernetes.reflector import Key, Reflector
from abruzzi_operators.kubernetes.resources import Object, Resource
from abruzzi_operators.renderers.names import LABEL_ATTEMPT

KEPT_ENDS = 10_000
"""Attempts whose deleted pods are remembered; the engine records an outcome within seconds."""


class Ledger:
    def __init__(self) -> None:
        self._pods: dict[str, dict[Key, Object]] = {}
        self._attempts_of_pods: dict[Key, str] = {}
        self._workloads: dict[str, dict[Key, tuple[Resource, Object]]] = {}
        self._attempts_of_workloads: dict[tuple[str, Key], str] = {}
        self._queue: dict[Key, str] = {}
        self._messages: dict[str, str] = {}
        self._ends: OrderedDict[str, dict[int, PodEnd]] = OrderedDict()

    def attempts(self) -> set[str]:
        """With a workload, or a pod that lives."""
        return set(self._workloads) | {attempt for attempt in self._pods if self.living_pods(attempt)}

    def workload(self, attempt_id: str) -> tuple[Resource, Object] | None:
        return next(iter(self._workloads.get(attempt_id, {}).values()), None)

    def queue_message(self, workload: Object) -> str | None:
        """Kueue's word about what it made of the workload."""
        return self._messages.get(workload["metadata"]["uid"])

    def pods(self, attempt_id: str) -> list[Object]:
        return list(self._pods.get(attempt_id, {}).values())

    def living_pods(self, attempt_id: str) -> list[Object]:
        return [pod for pod in self.pods(attempt_id) if not is_over(pod)]

    def ends(self, attempt_id: str) -> dict[int, PodEnd]:
        """{index of the node: how its first pod ended}, of pods that are still there and of those that are gone."""
        found = dict(self._ends.get(attempt_id, {}))
        for pod in self.pods(attempt_id):
            end = pod_end(pod)
            if end is not None:
                found.setdefault(end.index, end)
        return found

    def lost_pods(self, attempt_id: str) -> dict[int, PodEnd]:
        """Only those whose object is gone."""
        return dict(self._ends.get(attempt_id, {}))

    def forget(self, attempt_id: str) -> None:
        self._ends.pop(attempt_id, None)

    def take_pods(self, reflector: Reflector[Object], keys: Iterable[Key]) -> None:
        for key in keys:
            entry = reflector.entries.get(key)
            known = self._known_pod(key)
            if known is not None and (entry is None or entry.uid != known["metadata"]["uid"]):
                self._lose_pod(reflector, key, known)
            if entry is not None:
                attempt = _attempt_of(entry.value)
                if attempt is not None:
                    self._attempts_of_pods[key] = attempt
                    self._pods.setdefault(attempt, {})[key] = entry.value

    def take_workloads(self, reflector: Reflector[Object], keys: Iterable[Key]) -> None:
        kind = reflector.resource.kind
        for key in keys:
            entry = reflector.entries.get(key)
            attempt = self._attempts_of_workloads.get((kind, key))
            if entry is not None:
                attempt = _attempt_of(entry.value)
                if attempt is not None:
                    self._attempts_of_workloads[kind, key] = attempt
                    self._workloads.setdefault(attempt, {})[key] = (reflector.resource, entry.value)
            elif attempt is not None:
                self._drop_workload(attempt, kind, key)

    def take_queue(self, reflector: Reflector[Object], keys: Iterable[Key]) -> None:
        """Kueue's Workloads: each is owned by the workload that it stands for."""
        for key in keys:
            entry = reflector.entries.get(key)
            if key in self._queue:
                self._messages.pop(self._queue.pop(key), None)
            if entry is not None:
                owners = entry.value["metadata"].get("ownerReferences") or ()
                conditions = (entry.value.get("status") or {}).get("conditions") or ()
                message = next((c.get("message") for c in conditions if c["type"] == "QuotaReserved"), None)
                if owners and message:
                    self._queue[key] = owners[0]["uid"]
                    self._messages[owners[0]["uid"]] = message

    def drop_workload(self, attempt_id: str) -> None:
        """The apiserver says that it is gone; the watch will say so too."""
        self._workloads.pop(attempt_id, None)

    def _known_pod(self, key: Key) -> Object | None:
        attempt = self._attempts_of_pods.get(key)
        return self._pods.get(attempt, {}).get(key) if attempt is not None else None

    def _lose_pod(self, reflector: Reflector[Object], key: Key, known: Object) -> None:
        attempt = self._attempts_of_pods.pop(key)
        pods = self._pods[attempt]
        del pods[key]
        if not pods:
            del self._pods[attempt]
        deletion = reflector.deletion(known["metadata"]["uid"])
        last = deletion.entry.value if deletion is not None else known
        end = pod_end(last, deleted=True)
        assert end is not None
        self._ends.setdefault(attempt, {}).setdefault(pod_index(last), end)
        self._ends.move_to_end(attempt)
        while len(self._ends) > KEPT_ENDS:
            self._ends.popitem(last=False)

    def _drop_workload(self, attempt: str, kind: str, key: Key) -> None:
        self._attempts_of_workloads.pop((kind, key), None)
        found = self._workloads.get(attempt, {})
        found.pop(key, None)
        if not found:
            self._workloads.pop(attempt, None)


def _attempt_of(thing: Object) -> str | None:
    return (thing["metadata"].get("labels") or {}).get(LABEL_ATTEMPT)
