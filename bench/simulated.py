"""The ground of the benches of scale: a control plane of Kubernetes with simulated H800 nodes, the platform's own processes in front of it,
and the apiserver's audit log as the witness of who wrote what.

Real: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, PostgreSQL (fsync on), MinIO, the API and the controller of the platform.
Simulated: nodes and what runs on them, by KWOK (nodes are Ready and take pods; pods run for some seconds, print a line and end with 0).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from cluster import simulated_nodes
from cluster.binaries import KWOK, module_folder
from cluster.components import Component
from cluster.control_plane import ETCD_URL as ETCD_URL
from cluster.handle import ClusterHandle, the_cluster
from cluster.layout import Layout
from cluster.platform_process import PlatformProcess, open_platform

from abruzzi.contracts.pool import Amounts, PoolSpec, Toleration
from abruzzi_operators.supervisor.postgres import EmbeddedPostgres

PRINTED = "2026-01-01T00:00:00.000000000Z stdout F a simulated pod has nothing to say\n"
"""As a container runtime writes it."""
WRITE_VERBS = ("create", "update", "patch", "delete", "deletecollection")
OUR_AGENT = "abruzzi/"


@dataclass
class Ground:
    cluster: ClusterHandle
    platform: PlatformProcess
    namespace: str
    postgres: EmbeddedPostgres
    audit: Path

    def database(self) -> str:
        return self.postgres.dsn("abruzzi_owner", self.platform._name)

    def processes(self) -> dict[str, psutil.Process]:
        """Everything that works for a run, by name."""
        local = self.cluster.local
        names = ("etcd", "apiserver", "controller-manager", "scheduler", "kwok")
        found = {name: pid for name in names if (pid := Component(name, local.layout).pid) is not None}
        found |= {f"our {name}": process.pid for name, process in self.platform._processes.items() if name != "minio"}
        found["minio"] = self.platform._processes["minio"].pid
        if self.postgres.pid is not None:
            found["postgres"] = self.postgres.pid
        found["bench"] = os.getpid()
        return {name: psutil.Process(pid) for name, pid in found.items()}

    def cpu_seconds(self) -> dict[str, float]:
        """Since their start, with the children that have ended and those that live."""
        return {name: round(_cpu(process, name != "bench"), 1) for name, process in self.processes().items()}

    def seconds_waited(self) -> dict[str, float]:
        """For a processor, ready to run: of the threads that live (a part that waits much is held back by its share of the cores)."""
        return {name: round(_waited(process, name != "bench"), 1) for name, process in self.processes().items()}


@dataclass
class Writes:
    """What the audit log says about one namespace."""

    ours: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """By object name: `verb resource code` of each write of our client."""
    shared: int = 0
    """Of our client, to objects that belong to no single run (the fence)."""
    bound: Counter[str] = field(default_factory=Counter)
    """By pod: bindings that the apiserver took."""
    by_agent: Counter[str] = field(default_factory=Counter)


def read_audit(path: Path, namespace: str) -> Writes:
    found = Writes()
    with path.open() as lines:
        for line in lines:
            event = json.loads(line)
            where = event.get("objectRef") or {}
            if event["verb"] not in WRITE_VERBS or where.get("namespace") != namespace:
                continue
            agent, code = event.get("userAgent", ""), event.get("responseStatus", {}).get("code", 0)
            found.by_agent[agent.split(" ")[0]] += 1
            name = where.get("name") or ""
            if agent.startswith(OUR_AGENT):
                what = f"{event['verb']} {where['resource']} {code}"
                if name.startswith("abruzzi-") and where["resource"] != "configmaps":
                    found.ours[name].append(what)
                else:
                    found.shared += 1
            elif where.get("subresource") == "binding" and code == 201:
                found.bound[name] += 1
    return found


@contextmanager
def ground(
    folder: Path, *, nodes: int, pools: Sequence[PoolSpec], pod_delay: str, operators: tuple[str, ...] = ()
) -> Iterator[Ground]:
    """`pod_delay`: of KWOK's stage, how long pods run. Without operators there is no kubelet: nothing runs in the cluster but simulated pods."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # whoever ends the bench wants its processes ended, too
    with the_cluster() as cluster, EmbeddedPostgres(folder / "postgres") as postgres:
        layout = cluster.local.layout
        if not cluster.was_started_here:
            raise SystemExit(
                "A test cluster runs here already: end it (`make cluster-down`). The bench starts its own, with nothing else in it."
            )
        if operators:
            cluster.install(*operators)
        else:
            for name in ("kubelet", "kube-proxy", "coredns", "containerd"):
                cluster.local.component(name).stop()
        with cluster.new_namespace() as namespace:
            audit = audit_writes(cluster, layout, namespace)
            stages = (*simulated_nodes.STAGES[:3], str(completing(layout, pod_delay)), simulated_nodes.STAGES[4])
            simulated_nodes.start(layout, cluster.tools, stages, log=PRINTED)
            cluster.add_simulated_nodes(nodes)
            with open_platform(folder / "platform", cluster, namespace, postgres) as platform:
                with platform.client() as client:
                    for each in pools:
                        client.pools.apply(each)
                yield Ground(cluster, platform, namespace, postgres, audit)


def keep_logs(base: Ground, folder: Path) -> None:
    """Of all parts, with the audit log."""
    folder.mkdir(parents=True, exist_ok=True)
    for log in (*base.platform.folder.glob("*.log"), *base.cluster.local.layout.logs.glob("*.log"), base.audit):
        shutil.copy(log, folder)


def audit_writes(cluster: ClusterHandle, layout: Layout, namespace: str) -> Path:
    """Starts the apiserver anew with a log of every write to the namespace, by whom."""
    policy, log = layout.state / "audit.yaml", layout.state / "audit.log"
    policy.write_text(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n"
        f"- {{level: Metadata, verbs: {json.dumps(WRITE_VERBS)}, namespaces: [{namespace}]}}\n- {{level: None}}\n"
    )
    apiserver = Component("apiserver", layout)
    command = json.loads((layout.run / "apiserver.json").read_text())["command"]
    apiserver.stop()
    apiserver.start([*command, f"--audit-policy-file={policy}", f"--audit-log-path={log}", "--audit-log-maxsize=4000"])
    cluster.local.wait_ready()
    return log


def completing(layout: Layout, delay: str) -> Path:
    """KWOK's own stage of a pod that ends well, after a time."""
    text = (module_folder(KWOK) / "kustomize" / "stage" / simulated_nodes.STAGES[3]).read_text()
    path = layout.state / "pod-complete.yaml"
    path.write_text(text.replace("  next:\n", f"  delay: {{{delay}}}\n  next:\n", 1))
    return path


def pool(name: str, rank: Amounts, **fields: Any) -> PoolSpec:
    """Of simulated nodes."""
    nodes = {simulated_nodes.FLAVOR_LABEL: simulated_nodes.FLAVOR}
    tolerations = (Toleration(key=simulated_nodes.TAINT["key"]),)
    return PoolSpec(
        name=name, kind="kubernetes", flavor="H800", rank=rank, node_labels=nodes, tolerations=tolerations, **fields
    )


def one_pod(name: str, image_command: Sequence[str], pool: str, ranks: int = 1) -> str:
    """A recipe of one stage whose ranks fit one pod."""
    return f"""
version = 1
name = "{name}"
[[stage]]
id = "work"
kind = "container"
[stage.container]
image = "docker.io/library/busybox:1"
command = {json.dumps(list(image_command))}
[stage.resources]
pool = "{pool}"
ranks = {ranks}
"""


def until(what: str, condition: Callable[[], bool], *, seconds: float, state: Callable[[], object]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not so after {seconds:.0f} s; {state()}")
        time.sleep(0.5)


def _waited(process: psutil.Process, with_children: bool) -> float:
    waited = 0
    for each in (process, *(process.children(recursive=True) if with_children else ())):
        for thread in Path(f"/proc/{each.pid}/task").glob("*/schedstat"):
            with suppress(FileNotFoundError, ProcessLookupError):
                waited += int(thread.read_text().split()[1])
    return waited / 1e9


def _cpu(process: psutil.Process, with_children: bool) -> float:
    times = process.cpu_times()
    own = times.user + times.system
    if not with_children:
        return own
    living = sum(_cpu(child, True) for child in process.children() if child.is_running())
    return own + times.children_user + times.children_system + living
