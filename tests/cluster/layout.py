"""Where everything of a test cluster is: one state directory, one bridge, one cgroup. `teardown` removes all three."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"

BRIDGE = "abz0"
HOST_ADDRESS = "10.244.0.1"
"""The bridge's address: node, apiserver and DNS live there, and a pod reaches a process of the host there."""
HARDWARE_ADDRESS = "0a:58:0a:f4:00:01"
"""As CNI's plugins make it of the address above."""
POD_CIDR = "10.244.0.0/24"
CLUSTER_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
APISERVER_SERVICE = "10.96.0.1"
NODE = "node1"
NODES = (NODE, "node2", "node3")
"""The first is there as long as the cluster; a test may add the others (another_node.py)."""
CGROUP = "abruzzi-test"
NETWORK = "abruzzi-test"
APISERVER_PORT, ETCD_PORT, ETCD_PEER_PORT, KUBELET_PORT = 6443, 2379, 2380, 10250
LONGEST_STATE_PATH = 80
"""The kernel takes Unix socket paths of 107 bytes, and containerd's and the kubelet's lie below the state directory."""


@dataclass(frozen=True)
class Layout:
    """Paths below the state directory, of one node."""

    state: Path
    node: str = NODE

    @classmethod
    def default(cls) -> Layout:
        return cls(CACHE / "cluster")

    def of(self, node: str) -> Layout:
        """Of a node beside the first."""
        return Layout(self.state / node, node)

    @property
    def cluster(self) -> Path:
        """The state directory of all."""
        return self.state if self.node == NODE else self.state.parent

    @property
    def cgroup(self) -> str:
        return CGROUP if self.node == NODE else f"{CGROUP}/{self.node}"

    @property
    def kubelet_port(self) -> int:
        return KUBELET_PORT + NODES.index(self.node)

    @property
    def pki(self) -> Path:
        return self.cluster / "pki"

    @property
    def addresses(self) -> Path:
        """Of pods. All nodes share one bridge."""
        return self.cluster / "addresses"

    @property
    def run(self) -> Path:
        return self.state / "run"

    @property
    def logs(self) -> Path:
        """The one folder that outlives `down`: what a failed run said is wanted afterwards."""
        logs = self.cluster / "logs"
        return logs if self.node == NODE else logs / self.node

    @property
    def etcd(self) -> Path:
        return self.state / "etcd"

    @property
    def images(self) -> Path:
        return self.state / "images"

    @property
    def cni(self) -> Path:
        return self.state / "cni"

    @property
    def containerd(self) -> Path:
        return self.state / "containerd"

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd.sock"

    @property
    def kubelet(self) -> Path:
        return self.state / "kubelet"

    @property
    def pod_logs(self) -> Path:
        return self.state / "pod-logs"

    @property
    def before(self) -> Path:
        """What the machine's settings were, for `down` to set back."""
        return self.state / "before.json"

    def kubeconfig(self, user: str = "admin") -> Path:
        return self.cluster / f"{user}.conf"

    def make(self) -> None:
        for folder in (self.pki, self.run, self.logs, self.images, self.cni, self.pod_logs):
            folder.mkdir(parents=True, exist_ok=True)
