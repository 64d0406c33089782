"""NetworkPolicies that hold. The bridge of the test cluster enforces none, and kube-proxy neither: kube-router's firewall does, alone (its router and
its proxy stay off). Rules in iptables' filter table, addresses of pods in ipsets; kernels without nftables' queue can do that, too."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.binaries import Toolbox
from cluster.components import Component, wait_until
from cluster.errors import CannotRunHere
from cluster.layout import NODE, SERVICE_CIDR
from cluster.local_cluster import LocalCluster
from cluster.teardown import remove_firewall

PART = "kube-router"
CHAIN = "KUBE-ROUTER-FORWARD"
READY_SECONDS = 240.0


@contextmanager
def enforced(cluster: LocalCluster) -> Iterator[Component]:
    """While the block lasts. Building kube-router, the first time, takes two minutes of both processors."""
    if not shutil.which("ipset"):
        raise CannotRunHere("ipset not found: `apt-get install ipset`")
    layout, firewall = cluster.layout, Component(PART, cluster.layout)
    tools = Toolbox(cluster.tools.folder, allow_build=True)
    firewall.start(
        [
            *(tools.path(PART), f"--kubeconfig={layout.kubeconfig()}", f"--hostname-override={NODE}"),
            *("--run-firewall=true", "--run-router=false", "--run-service-proxy=false", "--enable-cni=false"),
            *(f"--service-cluster-ip-range={SERVICE_CIDR}", "--iptables-sync-period=30s", "--health-port=0"),
        ]
    )
    try:
        firewall.wait_ready(_is_there, seconds=READY_SECONDS)
        yield firewall
    finally:
        firewall.stop()
        remove_firewall()
        wait_until("the firewall is gone", lambda: not _is_there(), seconds=READY_SECONDS)


def _is_there() -> bool:
    return subprocess.run(["iptables", "-S", CHAIN], capture_output=True, check=False).returncode == 0
