"""Kueue's baseline shape through the platform, against the same suspended Jobs from a plain client on the same cluster.

    python bench/kueue_baseline.py [--out FILE] [--workloads 600] [--rate 5] [--rounds 2]

The shape is that of Kueue's own performance runner (test/performance/scheduler/configs/baseline of v0.16.2): 5 cohorts of 6 queues, quota 20 and
up to 100 borrowed, and for each queue 350 small (1 CPU, 0.2 s), 100 medium (5, 0.5 s) and 50 large (20, 1 s) workloads. Here a workload is a real
Job with a real (simulated) pod that the scheduler binds and KWOK ends after the class's time; Kueue's runner has neither Jobs nor pods.
Both sides create the same workloads in the same order at the same rate, in turn (ours, plain, plain, ours, …). Ours: a run submitted through
REST, its Secret, its Job, its outcome and log recorded, its objects removed; from the first submission to the last outcome in Postgres.
Plain: a Job, as our renderer writes it, by one POST each; from the first POST to the last Job's condition Complete.
Target: our wall time is at most 1.10 times theirs. Needs root and the cluster's binaries (ABRUZZI_CLUSTER_TOOLS).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
from interleaved import machine, report
from simulated import Ground, ground, keep_logs, one_pod, pool, until

from abruzzi.contracts.pool import Amounts, PoolSpec
from abruzzi.contracts.stage import DirectoryStore, StageSpec
from abruzzi.contracts.states import StageKind
from abruzzi_operators.kubernetes.access import Access
from abruzzi_operators.kubernetes.resources import CLUSTER_QUEUES, JOBS, LOCAL_QUEUES
from abruzzi_operators.kubernetes.rest_api import RestApi
from abruzzi_operators.renderers import Placement, RankResources, WorkloadKind, render

COHORTS, QUEUES = 5, 6
QUOTA, BORROWED = 20.0, 100.0
PLENTY = 1 << 44
PUBLISHED = {"workloads": 15_000, "seconds": 351.1, "workloads_per_second": 42.7, "source": "kueue v0.16.2 baseline/rangespec.yaml"}  # fmt: skip
TARGET_RATIO = 1.10
END_SECONDS = 540.0
LABEL_ROUND = "bench/round"


@dataclass(frozen=True)
class Class:
    name: str
    share: int
    """Of 500 workloads of a queue."""
    every_ms: int
    run: str
    ranks: int


CLASSES = (
    Class("small", 350, 100, "200ms", 1),
    Class("medium", 100, 500, "500ms", 5),
    Class("large", 50, 1200, "1s", 20),
)


def main() -> int:
    options = _arguments()
    load = list(os.getloadavg())
    with tempfile.TemporaryDirectory(prefix="kueue-") as folder:
        Path(folder).chmod(0o755)
        delay = "durationMilliseconds: 200, durationFrom: {expressionFrom: '.spec.containers[0].command[1]'}"
        queues = [queue(cohort, number) for cohort in range(COHORTS) for number in range(QUEUES)]
        with ground(Path(folder), nodes=options.nodes, pools=queues, pod_delay=delay, operators=("kueue",)) as base:
            try:
                result = asyncio.run(measure(base, options, [each.name for each in queues]))
            finally:
                if options.logs:
                    keep_logs(base, options.logs)
    result["load_average_at_start"] = load
    result["machine"] = machine(threads=0)
    report(result, out=options.out)
    return 0 if result["ok"] else 1


def queue(cohort: int, number: int) -> PoolSpec:
    rank = Amounts(cpus=1.0, memory=1 << 20)
    quota, borrow = Amounts(cpus=QUOTA, memory=PLENTY), Amounts(cpus=BORROWED, memory=PLENTY)
    name = f"cohort-{cohort}-cq-{number}"
    return pool(name, rank, ranks_per_node=32, quota=quota, borrow=borrow, cohort=f"cohort-{cohort}")


def workloads(count: int, queues: Sequence[str]) -> list[tuple[str, Class]]:
    """The order in which Kueue's generator makes them, of as many of each class as `count` allows."""
    made = [
        (index * each.every_ms, name, each)
        for name in queues
        for each in CLASSES
        for index in range(round(each.share * count / (500 * len(queues))))
    ]
    return [(name, each) for _, name, each in sorted(made, key=lambda one: one[0])]


async def measure(base: Ground, options: argparse.Namespace, queues: Sequence[str]) -> dict[str, Any]:
    wanted = workloads(options.workloads, queues)
    began = time.monotonic()
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    late: dict[str, list[float]] = {"ours": [], "plain": []}
    cpu: dict[str, list[dict[str, float]]] = {"ours": [], "plain": []}
    loads: list[float] = []
    with base.cluster.new_namespace() as namespace:
        async with RestApi(Access(kubeconfig=base.cluster.kubeconfig)) as api:
            await ready(api, base, namespace, queues)
            sides = {"ours": Ours(base, options.rate), "plain": Plain(api, namespace, options.rate)}
            for number in range(options.rounds):
                for name in ("ours", "plain") if number % 2 == 0 else ("plain", "ours"):
                    loads.append(os.getloadavg()[0])
                    before = base.cpu_seconds()
                    took, behind = await sides[name].run(number, wanted)
                    seconds[name].append(took)
                    late[name].append(behind)
                    await sides[name].clear(number)
                    cpu[name].append({part: round(used - before[part], 1) for part, used in base.cpu_seconds().items()})
    ratio = statistics.median(seconds["ours"]) / statistics.median(seconds["plain"])
    return {
        "bench": "kueue_baseline", "workloads_a_round": len(wanted), "rate_per_second": options.rate, "rounds": options.rounds,
        "cohorts": COHORTS, "queues": len(queues), "nodes": options.nodes,
        "ours": summed(seconds["ours"], late["ours"], len(wanted)), "plain": summed(seconds["plain"], late["plain"], len(wanted)),
        "ratio": ratio, "target": f"ratio <= {TARGET_RATIO}", "ok": ratio <= TARGET_RATIO,
        "published_by_kueue": PUBLISHED,
        "size": f"{len(wanted)} of {PUBLISHED['workloads']}: all rounds of both sides took {(time.monotonic() - began) / 60:.1f} minutes on {os.cpu_count()} cores",
        "differences": "no priority classes on either side; Jobs and pods are real objects here, Kueue's runner has only Workloads",
        "cpu_seconds_each_round": cpu,
        "load_average_before_rounds": loads,
    }  # fmt: skip


def summed(seconds: list[float], late: list[float], count: int) -> dict[str, Any]:
    median = statistics.median(seconds)
    return {
        "wall_s": median, "wall_s_each_round": seconds, "workloads_per_second": count / median,
        "seconds_behind_the_rate_at_the_last_creation": late,
    }  # fmt: skip


async def ready(api: RestApi, base: Ground, namespace: str, queues: Sequence[str]) -> None:
    """Every ClusterQueue is active, and the plain side's namespace has its LocalQueues."""
    for name in queues:
        local = LOCAL_QUEUES.new(name, namespace, spec={"clusterQueue": f"abruzzi-{name}"})
        await api.create(LOCAL_QUEUES, local)
    deadline = time.monotonic() + 120.0
    while True:
        found = await api.list(CLUSTER_QUEUES)
        active = [q for q in found if any(c["type"] == "Active" and c["status"] == "True" for c in (q.get("status") or {}).get("conditions", ()))]  # fmt: skip
        if len(active) >= len(queues):
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"{len(active)} of {len(queues)} queues are active\n{base.platform.last_words()}")
        await asyncio.sleep(0.5)


async def paced(count: int, rate: float, create: Callable[[int], Awaitable[None]]) -> float:
    """Creates at the rate, whatever a creation takes. Returns by how many seconds the last answer came after its time."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            group.create_task(create(number))
    return time.monotonic() - began - (count - 1) / rate


class Ours:
    def __init__(self, base: Ground, rate: float) -> None:
        self._base, self._rate = base, rate

    async def run(self, number: int, wanted: Sequence[tuple[str, Class]]) -> tuple[float, float]:
        headers = {"Authorization": f"Bearer {self._base.platform.admin}"}
        address = f"{self._base.platform.url}/api/v1/"
        async with httpx.AsyncClient(base_url=address, headers=headers, timeout=60.0, trust_env=False) as client:

            async def create(index: int) -> None:
                name, kind = wanted[index]
                recipe = one_pod(f"{kind.name}-{name}", ["run", kind.run], name, kind.ranks)
                body = {"recipe_toml": recipe, "name": f"round-{number}"}
                answer = await client.post("runs", json=body, headers={"Idempotency-Key": f"{number}-{index}"})
                assert answer.status_code == 201, answer.text

            behind = await paced(len(wanted), self._rate, create)
        await asyncio.to_thread(self._wait, f"round-{number}", len(wanted))
        query = "SELECT extract(epoch FROM max(ended_at) - min(created_at)), count(*) FILTER (WHERE state <> 'succeeded') FROM runs WHERE name = %s"
        [(seconds, failed)] = self._ask(query, f"round-{number}")
        assert not failed, f"{failed} runs did not succeed\n{self._base.platform.last_words()}"
        return float(seconds), behind

    async def clear(self, number: int) -> None:
        """The next side begins when nothing of this one is left to do."""
        query = "SELECT count(*) FROM attempts JOIN runs ON runs.id = run_id WHERE NOT workload_removed AND name = %s"
        await asyncio.to_thread(
            until, "all is removed", lambda: self._ask(query, f"round-{number}")[0][0] == 0, seconds=120.0,
            state=self._base.platform.last_words,
        )  # fmt: skip

    def _wait(self, name: str, count: int) -> None:
        query = "SELECT count(*) FROM runs WHERE ended_at IS NOT NULL AND name = %s"
        until("every run has ended", lambda: self._ask(query, name)[0][0] == count, seconds=END_SECONDS,
              state=lambda: f"{self._ask(query, name)}\n{self._base.platform.last_words()}")  # fmt: skip

    def _ask(self, query: str, name: str) -> list[Any]:
        with psycopg.connect(self._base.database()) as connection:
            connection.execute("SELECT set_config('abruzzi.projects', 'default', false)")
            return connection.execute(query, (name,)).fetchall()  # type: ignore[arg-type]


class Plain:
    def __init__(self, api: RestApi, namespace: str, rate: float) -> None:
        self._api, self._namespace, self._rate = api, namespace, rate

    async def run(self, number: int, wanted: Sequence[tuple[str, Class]]) -> tuple[float, float]:
        began = time.monotonic()

        async def create(index: int) -> None:
            name, kind = wanted[index]
            await self._api.create(JOBS, self._job(number, index, name, kind))

        behind = await paced(len(wanted), self._rate, create)
        deadline = began + END_SECONDS
        while (complete := await self._complete(number)) < len(wanted):
            if time.monotonic() > deadline:
                raise SystemExit(f"{complete} of {len(wanted)} plain Jobs are complete after {END_SECONDS:.0f} s")
            await asyncio.sleep(0.5)
        return time.monotonic() - began, behind

    async def clear(self, number: int) -> None:
        for job in await self._api.list(JOBS, namespace=self._namespace, label_selector=f"{LABEL_ROUND}={number}"):
            await self._api.delete(JOBS, job["metadata"]["name"], namespace=self._namespace)

    async def _complete(self, number: int) -> int:
        jobs = await self._api.list(JOBS, namespace=self._namespace, label_selector=f"{LABEL_ROUND}={number}")
        return sum(
            any(c["type"] == "Complete" and c["status"] == "True" for c in (job.get("status") or {}).get("conditions", ()))
            for job in jobs
        )  # fmt: skip

    def _job(self, number: int, index: int, queue_name: str, kind: Class) -> dict[str, Any]:
        """As our renderer writes it, without the labels by which our controller would know it."""
        run_id = f"plain{number:01d}{index:04d}"
        container = {"image": "docker.io/library/busybox:1", "command": ["run", kind.run]}
        spec = StageSpec(
            project_id="default", run_id=run_id, stage_id="work", attempt_id=f"{run_id}-work-1", epoch=1, kind=StageKind.CONTAINER,
            config={"container": container}, store=DirectoryStore(root="none"), output_prefix="none/", world_size=kind.ranks,
        )  # fmt: skip
        queued = queue(0, 0)
        place = Placement(
            namespace=self._namespace, image="none", api_url="http://none", queue=queue_name, ranks_per_node=32,
            resources=RankResources(1.0, 1 << 20, 0), node_selector=dict(queued.node_labels),
            tolerations=tuple(t.model_dump(exclude_none=True) for t in queued.tolerations),
        )  # fmt: skip
        made = render(spec, place, WorkloadKind.JOB)
        for metadata in (made["metadata"], made["spec"]["template"]["metadata"]):
            ours = [label for label in metadata["labels"] if "abruzzi" in label or "managed-by" in label]
            for label in ours:
                del metadata["labels"][label]
            metadata["labels"][LABEL_ROUND] = str(number)
        return made


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--workloads", type=int, default=600, help="in a round, on each side")
    parser.add_argument("--rate", type=float, default=5.0, help="creations a second, on each side")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--nodes", type=int, default=16, help="of 192 CPUs each: quota is the limit, not they")
    parser.add_argument("--logs", type=Path, help="a folder for the logs of all parts")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
