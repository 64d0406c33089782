"""A sandbox pod of a real cluster: created (taken from the warm pool), `true` run in it, destroyed; beside the local isolators and a bare subprocess.

    python bench/sandbox_pods.py [--out FILE] [--rounds 40] [--burst 12] [--boxes 60]

Real: etcd, kube-apiserver, kubelet, containerd with gVisor as runtime class, the service with the chart's rights, all on this machine (tests/cluster).
warm     one box after the other, a pod ready each time: what a program waits for. In turns with the others.
burst    as many at once as the pool has not: most of them wait for a pod to start.
leaks    after all of them, pods that are there besides the ready ones.
Needs root, and the cluster's binaries with runsc (ABRUZZI_CLUSTER_TOOLS).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from interleaved import machine, report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from cluster.handle import the_cluster
from cluster.sandbox_ground import GVISOR, READY, SECONDS, TOKEN, Service, offer_gvisor, open_service

from abruzzi_jobs.sandbox import Box, isolators, run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--burst", type=int, default=12)
    parser.add_argument("--boxes", type=int, default=60)
    given = parser.parse_args()
    os.environ["PATH"] += f"{os.pathsep}{os.environ.get('ABRUZZI_CLUSTER_TOOLS', '')}"
    result: dict[str, Any] = {"machine": machine(threads=1), "ready": READY}
    with the_cluster() as cluster, tempfile.TemporaryDirectory(prefix="abruzzi-bench-pods-") as name:
        offer_gvisor(cluster)
        (folder := Path(name) / "service").mkdir()
        (Path(name) / "token").write_text(TOKEN)
        with open_service(cluster, folder, GVISOR) as service:
            os.environ |= {"ABRUZZI_SANDBOXES_URL": service.url, "ABRUZZI_TOKEN": str(Path(name) / "token")}
            result["warm"] = warm(service, given.rounds)
            result["burst"] = many(service, given.burst, at_once=given.burst)
            result["boxes"] = many(service, given.boxes, at_once=4)
            service.until(lambda said: said["ready"] == READY and not said["taken"])
            end = time.monotonic() + SECONDS
            while (left := len(service.pods()) - READY) and time.monotonic() < end:
                time.sleep(0.5)
            result["leaked"] = left
    result["machine"]["load_average_after"] = list(os.getloadavg())
    report(result, out=given.out)
    return 0 if not result["leaked"] else 1


def warm(service: Service, rounds: int) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {name: [] for name in (*isolators(), "bare_subprocess")}
    for number in range(rounds):
        names = list(seconds) if number % 2 == 0 else list(reversed(seconds))
        service.until(lambda said: said["ready"] == READY)
        for name in names:
            began = time.perf_counter()
            if name == "bare_subprocess":
                subprocess.run(["true"], check=True)
            else:
                boxed(name)
            seconds[name].append(time.perf_counter() - began)
    return {name: _millis(each) for name, each in seconds.items()}


def many(service: Service, boxes: int, *, at_once: int) -> dict[str, Any]:
    service.until(lambda said: said["ready"] == READY)

    def timed(_: int) -> float:
        began = time.perf_counter()
        boxed("pods")
        return time.perf_counter() - began

    began = time.perf_counter()
    with ThreadPoolExecutor(at_once) as threads:
        seconds = list(threads.map(timed, range(boxes)))
    return {"at_once": at_once, **_millis(seconds), "boxes_per_s": boxes / (time.perf_counter() - began)}


def boxed(isolator: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="abruzzi-bench-box-") as folder:
        done = run(Box(workspace=Path(folder), isolator=isolator), ["true"])
    if not done.ok:
        raise SystemExit(f"{isolator}: {done}")


def _millis(seconds: list[float]) -> dict[str, Any]:
    ordered = sorted(seconds)
    return {
        "p50_ms": 1e3 * statistics.median(ordered),
        "p99_ms": 1e3 * ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
        "count": len(ordered),
    }


if __name__ == "__main__":
    sys.exit(main())
