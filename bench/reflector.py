"""What 20 000 pods in view cost a controller: resident memory, seconds until the cache is complete, processor time of a burst of events.

    python bench/reflector.py [--out FILE] [--pods 20000] [--burst 5000] [--rounds 3] [--rival-rounds 1]

A real etcd and kube-apiserver on this machine hold the pods (of the size that our own PyTorchJobs have, statuses and managed fields included).
The watcher is a process of its own: ours is everything that the controller imports plus one reflector of all pods; the rival is the
`SharedInformer` of the `kubernetes` package, which is what a Python controller gets without work of its own. Each lists, takes a burst of
status changes, and (ours) compares its whole cache with the server once; the peak covers all three.
Target: ours stays below 500 MiB at its peak. Needs the binaries etcd and kube-apiserver (ABRUZZI_CLUSTER_TOOLS).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

if TYPE_CHECKING:
    from cluster.apiserver import ApiServer

NAMESPACE: str = "stages"
TARGET_MIB = 500.0
WRITERS = 16
PUTS_A_TXN = 100
NODES: int = 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pods", type=int, default=20_000)
    parser.add_argument("--burst", type=int, default=5_000, help="status changes, as fast as the apiserver takes them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rival-rounds", type=int, default=1, help="it takes minutes and gigabytes")
    parser.add_argument("--watch", choices=("ours", "informer"), help=argparse.SUPPRESS)
    parser.add_argument("--kubeconfig", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watch:
        watch = {"ours": watch_ours, "informer": watch_informer}[options.watch]
        watch(options.kubeconfig, options.burst)
        return 0
    result = measure(options.pods, options.burst, options.rounds, options.rival_rounds)
    from interleaved import report

    report(result, out=options.out)
    return 0 if result["target_met"] else 1


def measure(pods: int, burst: int, rounds: int, rival_rounds: int) -> dict[str, Any]:
    from cluster.apiserver import ApiServer
    from interleaved import machine

    with tempfile.TemporaryDirectory() as folder, ApiServer(Path(folder) / "state") as server:
        pod_bytes = fill(server, pods)
        measured: dict[str, list[dict[str, float]]] = {"ours": [], "informer": []}
        for index in range(max(rounds, rival_rounds)):
            for name, wanted in (("ours", rounds), ("informer", rival_rounds)):
                if index < wanted:
                    measured[name].append(watched(name, server.kubeconfig, burst, index))
    peak = max(round_["peak_mib"] for round_ in measured["ours"])
    return {
        "bench": "reflector", "pods": pods, "mean_pod_json_bytes": pod_bytes,
        "burst_events": burst, "ours": summed(measured["ours"]), "informer": summed(measured["informer"]),
        "target": f"ours: peak resident memory <= {TARGET_MIB:.0f} MiB", "peak_mib": peak, "target_met": peak <= TARGET_MIB,
        "machine": machine(threads=1),
    }  # fmt: skip


def summed(rounds: list[dict[str, float]]) -> dict[str, Any] | None:
    if not rounds:
        return None
    return {"median": {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}, "rounds": rounds}


def watched(name: str, kubeconfig: Path, burst: int, index: int) -> dict[str, float]:
    """One round: the watcher says when it is complete, then this process writes the burst, then it says what it took."""
    command = [sys.executable, __file__, "--watch", name, "--kubeconfig", str(kubeconfig), "--burst", str(burst)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        try:
            complete = json.loads(watcher.stdout.readline())
            began = time.perf_counter()
            asyncio.run(change(kubeconfig, burst, f"{name}-{index}"))
            written_s = time.perf_counter() - began
            done = json.loads(watcher.stdout.readline())
            return {**complete, **done, "burst_written_s": written_s}
        finally:
            watcher.kill()


def fill(server: ApiServer, pods: int) -> float:
    """Returns the mean size of a pod's JSON in bytes.

    One pod is written through the apiserver; the others are copies of what it stored, with names of the same length, put into etcd directly:
    forty thousand writes through the apiserver would be most of this bench, and are not what it measures.
    """
    model = asyncio.run(write_model(server.kubeconfig))
    stored = server.etcd("/v3/kv/range", {"key": key(0)})["kvs"][0]["value"]
    value = base64.b64decode(stored)
    for first in range(1, pods, PUTS_A_TXN):
        puts = [
            {"request_put": {"key": key(number), "value": base64.b64encode(copy_of(value, model, number)).decode()}}
            for number in range(first, min(first + PUTS_A_TXN, pods))
        ]
        server.etcd("/v3/kv/txn", {"success": puts})
    return asyncio.run(mean_size(server.kubeconfig, pods))


def key(number: int) -> str:
    return base64.b64encode(f"/registry/pods/{NAMESPACE}/{name(number)}".encode()).decode()


def copy_of(value: bytes, model: dict[str, Any], number: int) -> bytes:
    uid = model["metadata"]["uid"]
    own = f"{number:08x}{uid[8:]}"
    pairs = [
        (uid, own),
        (name(0), name(number)),
        (run(0), run(number)),
        (node(0), node(number)),
        (address(0), address(number)),
    ]
    for old, new in pairs:
        assert len(old) == len(new), (old, new)
        value = value.replace(old.encode(), new.encode())
    return value


async def write_model(kubeconfig: Path) -> dict[str, Any]:
    from abruzzi_operators.kubernetes.access import Access
    from abruzzi_operators.kubernetes.errors import AlreadyExists
    from abruzzi_operators.kubernetes.resources import NAMESPACES, PODS
    from abruzzi_operators.kubernetes.rest_api import RestApi

    async with RestApi(Access(kubeconfig=kubeconfig)) as api:
        with suppress(AlreadyExists):
            await api.create(NAMESPACES, NAMESPACES.new(NAMESPACE))
        await api.create(PODS, pod(0))
        return await api.patch(PODS, name(0), {"status": status(0)}, namespace=NAMESPACE, subresource="status")


async def mean_size(kubeconfig: Path, pods: int) -> float:
    from abruzzi_operators.kubernetes.access import Access
    from abruzzi_operators.kubernetes.resources import PODS
    from abruzzi_operators.kubernetes.rest_api import RestApi

    async with RestApi(Access(kubeconfig=kubeconfig)) as api:
        page = await api.page(PODS, namespace=NAMESPACE, limit=100)
        names = {item["metadata"]["name"] for item in page.items}
        assert len(names) == min(100, pods)
        return statistics.mean(len(json.dumps(item, separators=(",", ":"))) for item in page.items)


async def change(kubeconfig: Path, burst: int, message: str) -> None:
    from abruzzi_operators.kubernetes.access import Access
    from abruzzi_operators.kubernetes.errors import Unreachable
    from abruzzi_operators.kubernetes.resources import PODS
    from abruzzi_operators.kubernetes.rest_api import RestApi

    async with RestApi(Access(kubeconfig=kubeconfig)) as api:

        async def one(number: int) -> None:
            patch = {"status": {"message": message}}
            try:
                await api.patch(PODS, name(number), patch, namespace=NAMESPACE, subresource="status")
            except Unreachable:  # a busy machine; the same patch again is the same change
                await one(number)

        await each(one, burst)


async def each(one: Any, count: int) -> None:
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await one(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(WRITERS):
            group.create_task(worker())


def run(number: int) -> str:
    return f"run{number // 64:07d}"


def name(number: int) -> str:
    return f"abruzzi-{run(number)}-pretrain-1-worker-{number % 64:02d}"


def node(number: int) -> str:
    return f"h800-{number % NODES:04d}"


def address(number: int) -> str:
    return f"10.{100 + number // 10000}.{100 + number // 100 % 100}.{100 + number % 100}"


def pod(number: int) -> dict[str, Any]:
    """As the training operator makes them of our PyTorchJob."""
    from abruzzi_operators.kubernetes.resources import PODS

    run_id = run(number)
    labels = {
        "app.kubernetes.io/managed-by": "abruzzi", "abruzzi.io/project": "default", "abruzzi.io/run": run_id, "abruzzi.io/stage": "pretrain",
        "abruzzi.io/attempt": f"{run_id}-pretrain-1", "abruzzi.io/epoch": "1", "kueue.x-k8s.io/queue-name": "h800",
        "training.kubeflow.org/job-name": f"abruzzi-{run_id}-pretrain-1", "training.kubeflow.org/replica-type": "worker",
        "training.kubeflow.org/replica-index": str(number % 64), "training.kubeflow.org/operator-name": "pytorchjob-controller",
    }  # fmt: skip
    environment = [
        {"name": f"ABRUZZI_SETTING_{index}", "value": f"value of setting {index} of {run_id}"} for index in range(24)
    ]
    limits = {"cpu": "96", "memory": "1000Gi", "nvidia.com/gpu": "8"}
    container = {
        "name": "pytorch", "image": "registry.example.test/abruzzi/jobs:1.0.0", "command": ["abruzzi-launch"], "env": environment,
        "resources": {"limits": limits, "requests": limits}, "terminationMessagePath": "/dev/termination-log",
        "volumeMounts": [{"name": "attempt", "mountPath": "/attempt"}, {"name": "secret", "mountPath": "/secret", "readOnly": True}],
    }  # fmt: skip
    body = PODS.new(name(number), NAMESPACE)
    body["metadata"] |= {"labels": labels, "annotations": {"abruzzi.io/spec-digest": "sha256:" + "0" * 64}}
    body["spec"] = {
        "nodeName": node(number), "restartPolicy": "Never", "containers": [container],
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "volumes": [{"name": "attempt", "emptyDir": {}}, {"name": "secret", "secret": {"secretName": f"abruzzi-{run_id}-pretrain-1"}}],
    }  # fmt: skip
    return body


def status(number: int) -> dict[str, Any]:
    moment = "2026-01-01T00:00:00Z"
    kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    container = {
        "name": "pytorch", "ready": True, "restartCount": 0, "started": True, "image": "registry.example.test/abruzzi/jobs:1.0.0",
        "imageID": "registry.example.test/abruzzi/jobs@sha256:" + "1" * 64, "containerID": f"containerd://{number:064x}",
        "state": {"running": {"startedAt": moment}},
    }  # fmt: skip
    return {
        "phase": "Running", "startTime": moment, "hostIP": "10.0.0.1", "podIP": address(number), "podIPs": [{"ip": address(number)}],
        "conditions": [{"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": moment} for kind in kinds],
        "containerStatuses": [container],
    }  # fmt: skip


def watch_ours(kubeconfig: Path, burst: int) -> None:
    import abruzzi_operators.controller.cluster
    import abruzzi_operators.controller.main  # noqa: F401  what a controller holds beside the cache
    from abruzzi_operators.kubernetes import projections
    from abruzzi_operators.kubernetes.access import Access
    from abruzzi_operators.kubernetes.reflector import Reflector, Tuning
    from abruzzi_operators.kubernetes.resources import PODS
    from abruzzi_operators.kubernetes.rest_api import RestApi

    async def follow() -> None:
        imported, began, busy = resident_mib(), time.perf_counter(), time.process_time()
        async with (
            RestApi(Access(kubeconfig=kubeconfig)) as api,
            Reflector(
                api, PODS, project=projections.pod, tuning=Tuning(watch_seconds=(20, 20), compare_seconds=3600)
            ) as pods,
        ):
            changes = pods.subscribe()
            await pods.synced(seconds=1200)
            say(imported_mib=imported, complete_s=time.perf_counter() - began, complete_cpu_s=time.process_time() - busy,
                complete_mib=resident_mib(), objects=len(pods.entries))  # fmt: skip
            busy = time.process_time()
            while pods.counts.events < burst:
                await changes.changed()
            burst_cpu = time.process_time() - busy
            pods._compare_at = 0.0  # when the present watch ends, and not in the middle of the burst
            while pods.counts.comparisons == 0:
                await asyncio.sleep(0.5)
            assert pods.counts.drift == 0, pods.counts
            say(burst_cpu_ms_per_event=1000 * burst_cpu / burst, peak_mib=peak_mib())

    asyncio.run(follow())


def watch_informer(kubeconfig: Path, burst: int) -> None:
    from kubernetes import client, config
    from kubernetes.informer.informer import MODIFIED, SharedInformer

    config.load_kube_config(str(kubeconfig))
    imported, began, busy = resident_mib(), time.perf_counter(), time.process_time()
    seen, complete = 0, threading.Event()

    def count(_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == burst:
            complete.set()

    informer = SharedInformer(client.CoreV1Api().list_pod_for_all_namespaces)
    informer.add_event_handler(MODIFIED, count)
    informer.start()
    while not informer._resource_version:
        time.sleep(0.1)
    say(imported_mib=imported, complete_s=time.perf_counter() - began, complete_cpu_s=time.process_time() - busy,
        complete_mib=resident_mib(), objects=len(informer.cache.list_keys()))  # fmt: skip
    busy = time.process_time()
    assert complete.wait(600), f"{seen} of {burst} events"
    say(burst_cpu_ms_per_event=1000 * (time.process_time() - busy) / burst, peak_mib=peak_mib())
    os._exit(0)  # its thread may be blocked in a read


def say(**numbers: float) -> None:
    sys.stdout.write(json.dumps(numbers) + "\n")
    sys.stdout.flush()


def resident_mib() -> float:
    return memory_mib("VmRSS")


def peak_mib() -> float:
    return memory_mib("VmHWM")


def memory_mib(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
