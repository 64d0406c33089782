"""Pods are processes of this machine: for faults that the cluster itself is not asked to make, and to see that nothing lives on."""

from __future__ import annotations

import psutil


def pod_processes(name: str) -> list[psutil.Process]:
    """Of the containers of pods whose names begin so, oldest first."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOSTNAME", "").startswith(name):
                found.append((process.create_time(), process))
        except psutil.Error:
            continue  # it has just ended, or it is of the kernel
    return [process for _, process in sorted(found, key=lambda pair: pair[0])]


def kill_pod(name: str) -> None:
    """Its first process, with SIGKILL: the container is gone, and whoever looks after the pod learns it from the kubelet."""
    pod_processes(name)[0].kill()
