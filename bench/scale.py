"""A thousand simulated nodes of eight GPUs, two thousand runs: accepted, bound, run and recorded once each, and what that costs.

    python bench/scale.py [--out FILE] [--nodes 1000] [--runs 2000] [--pods 20000]

Real: etcd, kube-apiserver, scheduler, controller-manager, PostgreSQL (fsync on), MinIO, our API and our controller, all on this machine
(bench/simulated.py), each with the share of its cores that its request would give it as a pod (bench/cpu_shares.py). A run is one `container`
stage of one pod; each pod asks for half a node's GPUs, so all of them fill the pool.
The figures come from Postgres (times, states, attempts), from the apiserver's audit log (who wrote what, how often, with which answer) and
from the controller's own process (memory). Targets: accepted at 50 runs a second or more; every run succeeded with one attempt, one workload,
one bound pod; at most 10 writes of ours to the apiserver for a run; at most 500 MiB of the controller with 20 000 pods in its view.
Needs root, cgroups of version 1 and the cluster's binaries (ABRUZZI_CLUSTER_TOOLS).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import reflector
from cpu_shares import shares
from interleaved import machine, report
from simulated import ETCD_URL, Ground, Writes, ground, one_pod, pool, read_audit, until

from abruzzi.contracts.pool import Amounts

METRICS_PORT = 19090
SUBMITTERS = 16
RUN_SECONDS = 4.0
TARGETS = {"accepted_per_second": 50.0, "writes_per_run": 10, "controller_mib": 500.0}
END_SECONDS = 900.0


def main() -> int:
    options = _arguments()
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        Path(folder).chmod(0o755)
        load = list(os.getloadavg())
        os.environ["ABRUZZI_METRICS_PORT"] = str(METRICS_PORT)
        half = pool("h800", Amounts(cpus=1.0, memory=1 << 30, gpus=4))
        # From half of RUN_SECONDS to one and a half of it.
        delay = f"durationMilliseconds: {int(RUN_SECONDS * 500)}, jitterDurationMilliseconds: {int(RUN_SECONDS * 1500)}"
        with ground(Path(folder), nodes=options.nodes, pools=[half], pod_delay=delay) as base:
            try:
                with shares(base.processes()) as given:
                    result = {**measure_runs(base, options), "cpu_shares": given, "load_average_at_start": load}
                    try:
                        if options.pods:
                            result["controller_memory"] = view_pods(base, options.pods, options.nodes)
                    finally:  # what was measured until then is not lost with what comes after
                        result["ok"] = is_met(result, options)
                        report({**result, "machine": machine(threads=0)}, out=options.out)
            finally:
                if options.logs:
                    keep_logs(base, options.logs)
    return 0 if result["ok"] else 1


def measure_runs(base: Ground, options: argparse.Namespace) -> dict[str, Any]:
    before, waited, transactions = base.cpu_seconds(), base.seconds_waited(), transactions_so_far(base)
    accepted = asyncio.run(submit(base.platform.url, base.platform.admin, options.runs))
    at_acceptance = base.cpu_seconds()
    waited = spent(waited, base.seconds_waited())
    until("every run has ended", lambda: ended(base) == options.runs, seconds=END_SECONDS,
          state=lambda: f"{states(base)}\n{base.platform.last_words()}")  # fmt: skip
    until("every workload is removed", lambda: unremoved(base) == 0, seconds=END_SECONDS, state=lambda: states(base))
    after = base.cpu_seconds()
    transactions = transactions_so_far(base) - transactions
    steps = metric("abruzzi_controller_step_seconds_count")
    runs = read_runs(base)
    writes = read_audit(base.audit, base.namespace)
    per_run = sorted(len(done) for done in writes.ours.values())
    return {
        "bench": "scale", "nodes": options.nodes, "gpus": options.nodes * 8, "runs": options.runs, "run_seconds": RUN_SECONDS,
        "accepted": {**accepted, "cpu_seconds": spent(before, at_acceptance), "seconds_waited_for_a_core": waited},
        "ended": {
            "seconds_from_first_submit_to_last_outcome": runs["span_s"],
            "runs_per_second": options.runs / runs["span_s"],
            "seconds_from_submit_to_outcome": runs["latency_s"],
            "states": states(base),
        },
        "exactly_once": exactly_once(base, runs, writes, options.runs),
        "writes_per_run": {
            "median": statistics.median(per_run), "most": per_run[-1], "shared_writes_a_run": writes.shared / options.runs,
            "kinds": dict(Counter(what for done in writes.ours.values() for what in done)),
        },
        "writes_by_agent": dict(writes.by_agent),
        "controller_looks_a_run": steps / options.runs, "database_transactions_a_run": transactions / options.runs,
        "cpu_seconds": spent(before, after),
        "targets": TARGETS,
    }  # fmt: skip


def spent(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: round(after[name] - before[name], 1) for name in after}


def is_met(result: dict[str, Any], options: argparse.Namespace) -> bool:
    writes, memory = result["writes_per_run"], result.get("controller_memory")
    return (
        result["accepted"]["per_second"] >= TARGETS["accepted_per_second"]
        and not result["exactly_once"]["faults"]
        and writes["most"] + writes["shared_writes_a_run"] <= TARGETS["writes_per_run"]
        and (not options.pods or (memory is not None and memory["peak_mib"] <= TARGETS["controller_mib"]))
    )


async def submit(url: str, token: str, runs: int) -> dict[str, float]:
    """By REST, each with an Idempotency-Key, as the SDK does; an answer is a commit in Postgres. From the first request to the last answer."""
    numbers, seconds, recipe = iter(range(runs)), [], one_pod("one-pod", ["true"], "h800")
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=f"{url}/api/v1/", headers=headers, timeout=60.0, trust_env=False) as client:

        async def worker() -> None:
            for number in numbers:
                began = time.perf_counter()
                body = {"recipe_toml": recipe, "name": f"run-{number}"}
                answer = await client.post("runs", json=body, headers={"Idempotency-Key": f"scale-{number}"})
                assert answer.status_code == 201, answer.text
                seconds.append(time.perf_counter() - began)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(SUBMITTERS):
                group.create_task(worker())
        took = time.perf_counter() - began
    return {
        "per_second": runs / took,
        "seconds": took,
        "submitters": SUBMITTERS,
        "answer_p50_s": statistics.median(seconds),
        "answer_p99_s": statistics.quantiles(seconds, n=100)[98],
    }


def ask(base: Ground, query: str) -> list[Any]:
    with psycopg.connect(base.database()) as connection:
        connection.execute("SELECT set_config('abruzzi.projects', 'default', false)")
        return connection.execute(query).fetchall()  # type: ignore[arg-type]


def ended(base: Ground) -> int:
    return ask(base, "SELECT count(*) FROM runs WHERE ended_at IS NOT NULL AND name LIKE 'run-%'")[0][0]


def unremoved(base: Ground) -> int:
    return ask(
        base, "SELECT count(*) FROM attempts JOIN runs ON runs.id = run_id WHERE NOT workload_removed AND name LIKE 'run-%'"
    )[0][0]  # fmt: skip


def states(base: Ground) -> dict[str, int]:
    return dict(ask(base, "SELECT state, count(*) FROM runs GROUP BY state"))


def read_runs(base: Ground) -> dict[str, Any]:
    [(span,)] = ask(
        base, "SELECT extract(epoch FROM max(ended_at) - min(created_at)) FROM runs WHERE name LIKE 'run-%'"
    )
    rows = ask(base, "SELECT extract(epoch FROM ended_at - created_at) FROM runs WHERE name LIKE 'run-%'")
    seconds = sorted(float(row[0]) for row in rows)
    latency = {"p50": statistics.median(seconds), "p99": statistics.quantiles(seconds, n=100)[98], "most": seconds[-1]}
    return {"span_s": float(span), "latency_s": latency}


def exactly_once(base: Ground, runs: dict[str, Any], writes: Writes, wanted: int) -> dict[str, Any]:
    """Three witnesses: Postgres for attempts and told outcomes, the audit log for workloads that were made and pods that were bound."""
    succeeded = ask(base, "SELECT count(*) FROM runs WHERE state = 'succeeded' AND name LIKE 'run-%'")[0][0]
    attempts = ask(base, "SELECT count(*), count(DISTINCT run_id) FROM attempts WHERE state = 'succeeded' AND spec IS NOT NULL")[0]  # fmt: skip
    all_attempts = ask(base, "SELECT count(*) FROM attempts JOIN runs ON runs.id = run_id WHERE name LIKE 'run-%'")[0][
        0
    ]
    told = ask(base, "SELECT count(*), count(DISTINCT run_id) FROM events WHERE kind = 'run.state' AND body ->> 'state' = 'succeeded'")[0]  # fmt: skip
    logs = ask(base, "SELECT count(DISTINCT attempt_id) FROM log_chunks")[0][0]
    made = Counter(sum(what.startswith("create jobs 201") for what in done) for done in writes.ours.values())
    counts = {
        "runs_succeeded": succeeded, "attempts": all_attempts, "attempts_succeeded": attempts[0],
        "outcomes_told": told[0], "runs_with_an_outcome_told": told[1], "workloads_made": sum(n * times for n, times in made.items()),
        "pods_bound": len(writes.bound), "logs_kept": logs,
    }  # fmt: skip
    faults = {name: count for name, count in counts.items() if count != wanted}
    if twice := sum(count > 1 for count in writes.bound.values()):
        faults["bound_twice"] = twice
    return {**counts, "faults": faults}


def view_pods(base: Ground, pods: int, nodes: int) -> dict[str, float]:
    """The resident memory of the controller that did all this, once it has so many more pods in its cache.

    They belong to runs that nobody looks at, 64 a run, and go into etcd as bench/reflector.py does it.
    """
    reflector.NAMESPACE, reflector.NODES = base.namespace, nodes
    idle = sorted({reflector.run(number) for number in range(pods)})
    with psycopg.connect(base.postgres.dsn("postgres", base.platform._name), autocommit=True) as connection:
        for run_id in idle:
            connection.execute(
                "INSERT INTO runs (id, project_id, name, recipe_name, recipe, recipe_toml, state, created_by, wake_at) "
                "VALUES (%s, 'default', 'idle', 'idle', '{}', '', 'running', 'bench', NULL)",
                (run_id,),
            )
            connection.execute(
                "INSERT INTO stages (run_id, id, project_id, position, kind, state, needs, config, bindings, world_size, max_attempts) "
                "VALUES (%s, 'pretrain', 'default', 0, 'container', 'running', '{}', '{}', '{}', 64, 3)",
                (run_id,),
            )
            connection.execute(
                "INSERT INTO attempts (id, project_id, run_id, stage_id, number, epoch, state, created_at) "
                "VALUES (%s, 'default', %s, 'pretrain', 1, 1, 'running', now())",
                (f"{run_id}-pretrain-1", run_id),
            )
    controller, told = base.processes()["our controller"], pod_events()
    already = controller.memory_info().rss / 2**20
    before = peak_mib(controller)
    model = asyncio.run(reflector.write_model(base.cluster.kubeconfig))
    stored = etcd("/v3/kv/range", {"key": reflector.key(0)})["kvs"][0]["value"]
    value = base64.b64decode(stored)
    with httpx.Client(base_url=ETCD_URL, trust_env=False, timeout=60.0) as client:
        for number in range(1, pods):  # one by one, as in a cluster: a watch that is resumed knows no half of a version
            copy = base64.b64encode(reflector.copy_of(value, model, number)).decode()
            client.post("/v3/kv/put", json={"key": reflector.key(number), "value": copy}).raise_for_status()
    until(
        "the controller has heard of every pod",
        lambda: pod_events() - told >= pods,
        seconds=END_SECONDS,
        state=pod_events,
    )
    return {
        "pods": pods, "before_mib": already, "peak_before_mib": before, "with_pods_mib": controller.memory_info().rss / 2**20,
        "peak_mib": peak_mib(controller),
    }  # fmt: skip


def etcd(path: str, body: dict[str, Any]) -> dict[str, Any]:
    return httpx.post(f"{ETCD_URL}{path}", json=body, trust_env=False, timeout=60.0).raise_for_status().json()


def pod_events() -> float:
    """That the controller's cache of pods has taken."""
    return metric('abruzzi_reflector_total{resource="pods",what="events"}')


def metric(name: str) -> float:
    """Of the controller, by its own /metrics."""
    text = httpx.get(f"http://127.0.0.1:{METRICS_PORT}/metrics", trust_env=False, timeout=60.0).text
    return next((float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0.0)


def transactions_so_far(base: Ground) -> int:
    return ask(base, "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")[0][0]


def peak_mib(process: psutil.Process) -> float:
    line = next(
        line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1024


def keep_logs(base: Ground, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for log in (*base.platform.folder.glob("*.log"), *base.cluster.local.layout.logs.glob("*.log"), base.audit):
        shutil.copy(log, folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--pods", type=int, default=20_000, help="in the controller's view at the end; 0 leaves it out")
    parser.add_argument("--logs", type=Path, help="a folder for the logs of all parts")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
