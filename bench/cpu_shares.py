"""Processor time shared out as a node would do it among the pods of a cluster: by what each asks for (cgroups, version 1).

On one machine without this a part is only as quick as the others leave it. A kubelet gives each pod `cpu.shares` of 1024 for a core of its
request, and all pods together 1024 for each core of the node; what is no pod of the cluster competes with all of them as one group of 1024.
So do we, with a group for each of the other machines. The shares bind only while there is more to do than processor time; what one part leaves, the others take by their shares.

Requests: of our parts those of the charts, times the replicas that these ask for (the one process here does the work of both); of Kubernetes'
own parts those of kubeadm's manifests. What stands for other machines (KWOK: the kubelets; the bench: people and CI) is a group each beside the
pods: in a cluster no kubelet takes processor time from the machine that submits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

CONTROLLER = Path("/sys/fs/cgroup/cpu")
A_CORE, LEAST = 1024, 2
CHARTS = Path(__file__).resolve().parent.parent / "charts"
KUBEADM = {"etcd": 100, "apiserver": 250, "controller-manager": 200, "scheduler": 100}
"""Thousandths of a core."""
OTHER_MACHINES = ("kwok", "bench")


@contextmanager
def shares(processes: Mapping[str, psutil.Process]) -> Iterator[dict[str, Any]]:
    """For as long as it is open. Yields what was given, for the report: {"shares": {part: of the pods' group}, "pods": …, "other_machines": of each}."""
    if not os.access(CONTROLLER / "cgroup.procs", os.W_OK):
        raise SystemExit(
            f"{CONTROLLER} is no cpu controller of cgroups (version 1) that may be written to: run this as root."
        )
    group = CONTROLLER / f"abruzzi-bench-{os.getpid()}"
    requests = {**KUBEADM, **_ours()}
    given = {
        name: max(LEAST, requests[name] * A_CORE // 1000) for name in sorted(processes) if name not in OTHER_MACHINES
    }
    pods, others = (os.cpu_count() or 1) * A_CORE, A_CORE
    folders = {
        group: pods + others * len(OTHER_MACHINES),
        group / "pods": pods,
        **{group / name: others for name in OTHER_MACHINES},
        **{group / "pods" / name: share for name, share in given.items()},
    }
    try:
        for folder, share in folders.items():
            folder.mkdir()
            (folder / "cpu.shares").write_text(str(share))
        for name, process in processes.items():
            where = group / name if name in OTHER_MACHINES else group / "pods" / name
            _move(process, where, with_children=process.pid != os.getpid())
        yield {"shares": given, "pods": pods, "other_machines": others}
    finally:
        for folder in reversed(folders):
            _dissolve(folder)


def _ours() -> dict[str, int]:
    ours = yaml.safe_load((CHARTS / "abruzzi" / "values.yaml").read_text())
    trial = yaml.safe_load((CHARTS / "abruzzi-trial" / "values.yaml").read_text())["resources"]
    return {
        "our api": _milli(ours["api"]["resources"]) * ours["api"]["replicas"],
        "our controller": _milli(ours["controller"]["resources"]) * ours["controller"]["replicas"],
        "postgres": _milli(trial["postgres"]),
        "minio": _milli(trial["s3"]),
    }


def _milli(resources: Mapping[str, Any]) -> int:
    return int(resources["requests"]["cpu"].removesuffix("m"))


def _move(process: psutil.Process, group: Path, *, with_children: bool) -> None:
    """Again until no new child was born meanwhile; what they bear later is born into the group."""
    moved: set[int] = set()
    while (
        new := {each.pid for each in (process, *process.children(recursive=True)[: None if with_children else 0])}
        - moved
    ):
        for pid in new:
            with suppress(ProcessLookupError):
                (group / "cgroup.procs").write_text(str(pid))
        moved |= new


def _dissolve(group: Path) -> None:
    with suppress(FileNotFoundError):
        for pid in (group / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                (CONTROLLER / "cgroup.procs").write_text(pid)
        group.rmdir()
