"""A node dies under a stage of 64 pods: seconds until the next attempt has a node for every one of its pods. And slow nodes that are let alone.

    python bench/node_death.py [--out FILE] [--pods 64] [--signalled 12] [--silent 6] [--slow-nodes 1000] [--slow-seconds 900]

Real: etcd, kube-apiserver, scheduler, controller-manager, training-operator (with the client rate that docs/how-to/run-on-kubernetes.md recommends),
PostgreSQL (fsync on), our API and controller, all on this machine (bench/simulated.py). Simulated by KWOK: the nodes, each of 8 GPUs, one pod a node.
  signalled: the node's kubelet is gone and the apiserver is told so (Ready becomes Unknown, as the node lifecycle controller does after 40 s
      and more without a kubelet; no rank has spoken for long then); from that write on.
  silent: nobody says anything; from the moment on in which the node stops to renew its lease and all ranks stop to speak, as they do when one
      of them is gone. Ranks have spoken every 3 s until then (written to Postgres as their heartbeats are).
  slow: 1000 nodes in virtual time whose leases come up to 28 s late, with ranks that stammer, pauses of the controller, an apiserver and an API
      that go away (tests/simulation/slow_nodes.py); how many are called lost. None is dead.
Targets: signalled p50 <= 5 s, p99 <= 25 s; silent p50 <= 20 s, p99 <= 60 s; no slow node called lost. Needs root and the cluster's binaries.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
from interleaved import machine, report
from simulated import Ground, ground, keep_logs, one_pod, pool, until

from abruzzi.contracts.node import NodeState
from abruzzi.contracts.pool import Amounts
from abruzzi.contracts.states import AttemptState

TARGETS = {
    "signalled_p50_s": 5.0,
    "signalled_p99_s": 25.0,
    "silent_p50_s": 20.0,
    "silent_p99_s": 60.0,
    "false_evictions": 0,
}
SPARE_NODES = 16
BEAT_SECONDS = 3.0
POLL_SECONDS = 0.1
DEADLINE_SECONDS = 180.0
REJOIN_SECONDS = 25.0
"""A controller that has just started believes no silence for so long."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--pods", type=int, default=64)
    parser.add_argument("--signalled", type=int, default=12, help="deaths that the apiserver is told of")
    parser.add_argument("--silent", type=int, default=6, help="deaths that nobody tells of")
    parser.add_argument("--slow-nodes", type=int, default=1000)
    parser.add_argument("--slow-seconds", type=float, default=900.0)
    parser.add_argument("--logs", type=Path, help="a folder for the logs of all parts")
    options = parser.parse_args()
    load = list(os.getloadavg())
    result: dict[str, Any] = {"bench": "node_death", "pods": options.pods, "load_average_at_start": load}
    result["slow"] = slow(options.slow_nodes, options.slow_seconds)
    with tempfile.TemporaryDirectory(prefix="node-death-") as folder:
        Path(folder).chmod(0o755)
        nodes = options.pods + SPARE_NODES
        whole = pool("h800", Amounts(cpus=1.0, memory=1 << 30, gpus=8))
        with ground(Path(folder), nodes=nodes, pools=[whole], pod_delay="durationMilliseconds: 1000",
                    operators=("training-operator",)) as base:  # fmt: skip
            try:
                deaths = Deaths(base, options.pods)
                deaths.begin()
                result["signalled"] = summed([deaths.one(is_told=True) for _ in range(options.signalled)])
                result["silent"] = summed([deaths.one(is_told=False) for _ in range(options.silent)])
                result["nodes"] = nodes
            finally:
                if options.logs:
                    keep_logs(base, options.logs)
    from cluster.installs import OPERATORS

    result["training_operator"] = list(OPERATORS["training-operator"].arguments)
    result["targets"] = TARGETS
    result["ok"] = (
        result["slow"]["false_evictions"] == 0
        and all(result[kind][f"p{p}_s"] <= TARGETS[f"{kind}_p{p}_s"] for kind in ("signalled", "silent") for p in (50, 99))
    )  # fmt: skip
    result["machine"] = machine(threads=0)
    report(result, out=options.out)
    return 0 if result["ok"] else 1


def slow(nodes: int, seconds: float) -> dict[str, Any]:
    from simulation.slow_nodes import SlowNodes

    found = SlowNodes(seed=1, nodes=nodes, seconds=seconds).run()
    return {
        "nodes": nodes, "virtual_seconds": seconds, "false_evictions": len(found.lost), "late_renewals": found.late_renewals,
        "oldest_lease_s": round(found.oldest_lease, 1), "controller_paused_s": round(found.paused_seconds, 1),
        "apiserver_away_s": round(found.apiserver_away_seconds, 1), "api_away_s": round(found.api_away_seconds, 1),
    }  # fmt: skip


def summed(deaths: list[dict[str, float]]) -> dict[str, Any]:
    seconds = sorted(death["bound_s"] for death in deaths)
    return {
        "deaths": len(deaths),
        "p50_s": statistics.median(seconds),
        "p99_s": seconds[min(len(seconds) - 1, int(0.99 * len(seconds)))],
        "max_s": seconds[-1],
        "noticed_p50_s": statistics.median(death["noticed_s"] for death in deaths),
        "each": deaths,
    }


class Deaths:
    """One run whose attempts lose a node, one after the other."""

    def __init__(self, base: Ground, pods: int) -> None:
        self._base, self._pods, self._number = base, pods, 1
        self._rng = random.Random(7)
        self._beating = threading.Event()
        self._database = psycopg.connect(base.postgres.dsn("abruzzi_controller", base.platform._name), autocommit=True)
        self._run_id = ""

    def begin(self) -> None:
        self._run_id = self._base.platform.submit(one_pod("gang", ["train"], "h800", ranks=self._pods))
        self._until_runs()
        threading.Thread(target=self._beat, daemon=True).start()
        time.sleep(REJOIN_SECONDS)

    def one(self, *, is_told: bool) -> dict[str, float]:
        from cluster import simulated_nodes

        kubectl, platform = self._base.cluster.kubectl, self._base.platform
        if is_told:
            self._get_further()
        else:
            self._beating.set()
            time.sleep(self._rng.uniform(2 * BEAT_SECONDS, 2 * BEAT_SECONDS + 10.0))  # at any point of a lease's life
        name = self._rng.choice(sorted(self._bound(self._number).values()))
        began = time.perf_counter()
        self._beating.clear()
        simulated_nodes.pull_plug(kubectl, name)
        if is_told:
            began = time.perf_counter()
            simulated_nodes.say_unreachable(kubectl, name)
        noticed = self._until("the attempt is given up", lambda: self._state(self._number).is_terminal)
        self._number += 1
        bound = self._until("the next attempt is bound", lambda: len(self._bound(self._number)) == self._pods)
        assert name not in self._bound(self._number).values()
        self._until_runs()
        simulated_nodes.plug_in(kubectl, name)
        with platform.client() as client:
            until("the node is back", lambda: client.nodes.get(name).state is NodeState.QUARANTINED, seconds=DEADLINE_SECONDS,
                  state=lambda: client.nodes.get(name))  # fmt: skip
            client.nodes.return_(name, "the bench has pulled its plug")
            until("the node is ready", lambda: client.nodes.get(name).state is NodeState.READY, seconds=DEADLINE_SECONDS,
                  state=lambda: client.nodes.get(name))  # fmt: skip
        return {"noticed_s": round(noticed - began, 2), "bound_s": round(bound - began, 2)}

    def _bound(self, number: int) -> dict[str, str]:
        """{pod: node} of an attempt's pods that are not ending."""
        selector = f"abruzzi.io/attempt={self._run_id}-work-{number}"
        template = (
            "{range .items[*]}{.metadata.name}|{.spec.nodeName}|{.metadata.deletionTimestamp}{'\\n'}{end}".replace(
                "'", '"'
            )
        )
        arguments = ("get", "pods", "-n", self._base.namespace, "-l", selector, "-o", f"jsonpath={template}")
        lines = [line.split("|") for line in self._base.cluster.kubectl(*arguments).splitlines()]
        return {pod: node for pod, node, ends in lines if node and not ends}

    def _state(self, number: int) -> AttemptState:
        row = self._database.execute(
            "SELECT state FROM attempts WHERE id = %s", [f"{self._run_id}-work-{number}"]
        ).fetchone()
        return AttemptState(row[0]) if row is not None else AttemptState.CREATED

    def _until_runs(self) -> None:
        self._until("the attempt runs", lambda: self._state(self._number) is AttemptState.RUNNING)

    def _until(self, what: str, condition: Any) -> float:
        deadline = time.perf_counter() + DEADLINE_SECONDS
        while not condition():
            if time.perf_counter() > deadline:
                raise SystemExit(f"{what}: not so after {DEADLINE_SECONDS:.0f} s\n{self._base.platform.last_words()}")
            time.sleep(POLL_SECONDS)
        return time.perf_counter()

    def _get_further(self) -> None:
        """A step that was told long ago: a stage that gets nowhere between two deaths is started again later and later."""
        self._database.execute(
            """INSERT INTO ranks (attempt_id, rank, project_id, step, phase, message, first_step, first_at, heartbeat_at)
               VALUES (%s, 0, 'default', %s, 'train', '', 1, now(), now() - interval '60 s')""",
            [f"{self._run_id}-work-{self._number}", self._number],
        )

    def _beat(self) -> None:
        """Heartbeats of all ranks of the attempt that runs, while none of them is gone."""
        with psycopg.connect(
            self._base.postgres.dsn("abruzzi_controller", self._base.platform._name), autocommit=True
        ) as connection:
            while True:
                time.sleep(BEAT_SECONDS)
                if self._beating.is_set():
                    connection.execute(
                        """INSERT INTO ranks (attempt_id, rank, project_id, step, phase, message, first_step, first_at, heartbeat_at, phase_seconds)
                           SELECT %(id)s, rank, 'default', %(step)s, 'train', '', 1, now(), now(), '{"train": [3.0]}' FROM generate_series(0, %(last)s) rank
                           ON CONFLICT (attempt_id, rank) DO UPDATE SET step = ranks.step + 1, heartbeat_at = now()""",
                        {
                            "id": f"{self._run_id}-work-{self._number}",
                            "last": self._pods - 1,
                            "step": 100 * self._number,
                        },
                    )


if __name__ == "__main__":
    sys.exit(main())
