"""What lives in a cluster beside the apiserver, in memory: the operators of Job and PyTorchJob, a kubelet, the garbage collector.

One pass of each is a `turn`; `run` takes turns until it is cancelled. Time passes `speed` times as fast as the clock of the event loop, which is
a virtual one (conftest.py): minutes of it are milliseconds, and the same ones each time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from simulation.fake_api import FakeApi

from abruzzi.contracts.states import ExitCode
from abruzzi_operators.kubernetes.errors import ApiError, NotFound
from abruzzi_operators.kubernetes.resources import (
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    PYTORCH_JOBS,
    SECRETS,
    Object,
    Resource,
)
from abruzzi_operators.launcher.outcome import RankExit, summary, to_message
from abruzzi_operators.renderers.names import LABEL_ATTEMPT

NAMESPACE = "abruzzi-stages"
START_SECONDS = 1.0
SAVE_SECONDS = 1.0


@dataclass(slots=True)
class Manner:
    """How the processes of one attempt behave."""

    exit_code: int = 0
    listens: bool = True
    finish: bool = False
    """Told to end."""
    image: str = "present"
    """Or the reason why the kubelet can't have it, such as ErrImagePull."""
    image_message: str = ""


@dataclass(slots=True)
class Process:
    began_at: float
    asked_at: float | None = None


@dataclass
class MemoryCluster:
    speed: float = 50.0
    api: FakeApi = field(init=False)
    manners: dict[str, Manner] = field(default_factory=dict)
    """By attempt."""
    started: list[str] = field(default_factory=list)
    """Attempts, once a process of each of their pods."""
    processes: dict[str, Process] = field(default_factory=dict)
    kills: list[str] = field(default_factory=list)
    """Pods whose processes are to be killed."""
    kubelet_is_silent: bool = False
    dead_nodes: set[str] = field(default_factory=set)
    """Whose kubelets are silent."""
    nodes: tuple[str, ...] = ("node-1",)
    """Where pods go: to the first that is not cordoned."""
    operators_are_slow: bool = False
    """They make no pods."""

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self.api = FakeApi(now=self.now)

    def now(self) -> float:
        return 1_764_000_000.0 + (self._loop.time() - self._began) * self.speed

    async def run(self) -> None:
        await self.api.create(NAMESPACES, NAMESPACES.new(NAMESPACE))
        while True:
            try:
                await self.turn()
            except ApiError:
                continue  # the apiserver is away; they try again, too
            finally:
                await asyncio.sleep(0.005)

    async def turn(self) -> None:
        for resource in (JOBS, PYTORCH_JOBS):
            if resource.full_name in self.api.served:
                for thing in await self.api.list(resource, namespace=NAMESPACE):
                    await self._operate(resource, thing)
        if not self.kubelet_is_silent:
            for pod in await self.api.list(PODS, namespace=NAMESPACE):
                if pod["spec"].get("nodeName") not in self.dead_nodes:
                    await self._tend(pod)
        self.api.collect_garbage()

    async def pods(self, attempt_id: str) -> list[Object]:
        return list(await self.api.list(PODS, namespace=NAMESPACE, label_selector=f"{LABEL_ATTEMPT}={attempt_id}"))

    async def _operate(self, resource: Resource, thing: Object) -> None:
        if "deletionTimestamp" in thing["metadata"] or _verdict(thing) or self.operators_are_slow:
            return
        templates = _templates(thing)
        suspended = thing["spec"].get("suspend") or (thing["spec"].get("runPolicy") or {}).get("suspend")
        pods = {name: await self._pod(name) for name in templates}
        ends = [_terminated(pod) for pod in pods.values() if pod is not None]
        was_made = (thing.get("status") or {}).get("made", 0)
        if any(end and end["exitCode"] for end in ends) or (resource is JOBS and was_made and not all(pods.values())):
            await self._conclude(resource, thing, "Failed")
        elif ends and all(ends) and all(pods.values()):
            await self._conclude(resource, thing, "Succeeded" if resource is PYTORCH_JOBS else "Complete")
        elif not suspended:
            for name, (template, labels) in templates.items():
                if pods[name] is None:
                    await self._make_pod(resource, thing, name, template, labels)
            if not was_made:
                self.api.put_status(resource, thing["metadata"]["name"], {"made": 1}, namespace=NAMESPACE)

    async def _pod(self, name: str) -> Object | None:
        try:
            return await self.api.get(PODS, name, namespace=NAMESPACE)
        except NotFound:
            return None

    async def _make_pod(
        self, resource: Resource, owner: Object, name: str, template: Object, labels: dict[str, str]
    ) -> None:
        metadata = template.get("metadata") or {}
        pod = PODS.new(name, NAMESPACE, spec=template["spec"])
        pod["metadata"]["labels"] = {**(metadata.get("labels") or {}), **labels}
        pod["metadata"]["annotations"] = metadata.get("annotations") or {}
        reference = {"apiVersion": resource.api_version, "kind": resource.kind, "controller": True}
        pod["metadata"]["ownerReferences"] = [
            {**reference, "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
        ]
        await self.api.create(PODS, pod)

    async def _conclude(self, resource: Resource, thing: Object, kind: str) -> None:
        condition = {"type": kind, "status": "True", "reason": kind, "message": f"The workload is {kind}"}
        self.api.put_status(resource, thing["metadata"]["name"], {"conditions": [condition]}, namespace=NAMESPACE)

    # The kubelet

    async def _tend(self, pod: Object) -> None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        attempt = pod["metadata"]["labels"][LABEL_ATTEMPT]
        manner, process = self.manners[attempt], self.processes.get(uid)
        leaving = "deletionTimestamp" in pod["metadata"]
        if _terminated(pod):
            if leaving:
                await self.api.delete(PODS, name, namespace=NAMESPACE, grace_seconds=0)
        elif process is None and leaving:
            await self.api.delete(PODS, name, namespace=NAMESPACE, grace_seconds=0)
        elif process is None:
            await self._start(pod, manner)
        elif name in self.kills:
            self.kills.remove(name)
            self._end(pod, 137, by_launcher=False)
        elif manner.finish:
            self._end(pod, manner.exit_code, by_launcher=False)
        elif leaving:
            process.asked_at = process.asked_at or self.now()
            if manner.listens and self.now() - process.asked_at >= SAVE_SECONDS:
                self._end(pod, int(ExitCode.PREEMPTED), by_launcher=True)
            elif self.now() >= datetime.fromisoformat(pod["metadata"]["deletionTimestamp"]).timestamp():
                self._end(pod, int(ExitCode.KILLED), by_launcher=False, told=False)

    async def _start(self, pod: Object, manner: Manner) -> None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        if "nodeName" not in pod["spec"]:
            node = await self._free_node()
            if node is not None:
                await self.api.patch(PODS, name, {"spec": {"nodeName": node}}, namespace=NAMESPACE)
            return
        if manner.image != "present":
            waiting = {"reason": manner.image, "message": manner.image_message}
            self._status(pod, "Pending", {"waiting": waiting})
            return
        secret = next(v["secret"]["secretName"] for v in pod["spec"]["volumes"] if v["name"] == "secret")
        try:
            await self.api.get(SECRETS, secret, namespace=NAMESPACE)
        except NotFound:
            return  # it waits for its files
        self.processes[uid] = Process(self.now())
        self.started.append(pod["metadata"]["labels"][LABEL_ATTEMPT])
        self._status(pod, "Running", {"running": {}})

    async def _free_node(self) -> str | None:
        cordoned = {n["metadata"]["name"] for n in await self.api.list(NODES) if n.get("spec", {}).get("unschedulable")}
        return next((name for name in self.nodes if name not in cordoned and name not in self.dead_nodes), None)

    def _end(self, pod: Object, code: int, *, by_launcher: bool, told: bool = True) -> None:
        index = _index(pod)
        exits = [
            RankExit(rank=index, code=code, signal=max(0, code - 128) if code == 137 else 0, by_launcher=by_launcher)
        ]
        message = to_message(summary(exits, started_at=0.0, ended_at=self.now(), stop_requested=by_launcher))
        terminated = {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "message": message if told else "",
        }
        self._status(pod, "Succeeded" if code == 0 else "Failed", {"terminated": terminated})

    def _status(self, pod: Object, phase: str, state: Object) -> None:
        container = {"name": pod["spec"]["containers"][0]["name"], "state": state}
        status = {"phase": phase, "containerStatuses": [container]}
        if (pod.get("status") or {}) != status:
            self.api.put_status(PODS, pod["metadata"]["name"], status, namespace=NAMESPACE)


def _templates(thing: Object) -> dict[str, tuple[Object, dict[str, str]]]:
    """{name of the pod: (template, labels that the operator adds)}"""
    name, spec = thing["metadata"]["name"], thing["spec"]
    if thing["kind"] == "Job":
        return {f"{name}-x": (spec["template"], {})}
    made: dict[str, Any] = {}
    for kind, replica in spec["pytorchReplicaSpecs"].items():
        for index in range(replica["replicas"]):
            role = kind.lower()
            labels = {"training.kubeflow.org/replica-type": role, "training.kubeflow.org/replica-index": str(index)}
            made[f"{name}-{role}-{index}"] = (replica["template"], labels)
    return made


def _index(pod: Object) -> int:
    labels = pod["metadata"]["labels"]
    is_worker = labels.get("training.kubeflow.org/replica-type") == "worker"
    return int(labels.get("training.kubeflow.org/replica-index", 0)) + is_worker


def _terminated(pod: Object) -> Object | None:
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        if "terminated" in status["state"]:
            return status["state"]["terminated"]
    return None


def _verdict(thing: Object) -> bool:
    return any(c["status"] == "True" for c in (thing.get("status") or {}).get("conditions") or ())
