"""A real node: bridge, containerd, kubelet and kube-proxy, with every path of theirs below the state directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cluster.binaries import Toolbox
from cluster.components import Component
from cluster.control_plane import admin_client
from cluster.errors import ClusterError
from cluster.layout import (
    BRIDGE,
    CGROUP,
    CLUSTER_CIDR,
    HARDWARE_ADDRESS,
    HOST_ADDRESS,
    NETWORK,
    NODE,
    POD_CIDR,
    SERVICE_CIDR,
    Layout,
)

CNI_PLUGINS = Path("/usr/lib/cni")
CGROUPS = Path("/sys/fs/cgroup")
PAUSE_IMAGE = "docker.io/abruzzi-test/pause:1"
READY_SECONDS = 240.0
SETTINGS = ("net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet", "net/bridge/bridge-nf-call-iptables")
"""What bridge CNI and kube-proxy change below /proc/sys."""
KUBELET_FOLDERS = ("/var/lib/kubelet", "/var/log/containers", "/var/lib/cni", "/run/containerd", "/run/xtables.lock")
"""Paths outside the state directory that the kubelet, CNI and containerd's shims write with no setting to move them."""


def run(*command: str | Path, input_text: str | None = None, check: bool = True) -> str:
    """Standard output. Raises with the command's own words."""
    result = subprocess.run(
        [str(part) for part in command], input=input_text, capture_output=True, text=True, check=False
    )
    if check and result.returncode:
        words = (result.stderr or result.stdout).strip()
        raise ClusterError(f"`{' '.join(str(part) for part in command)}` ended with {result.returncode}: {words}")
    return result.stdout


def remember_machine(layout: Layout) -> None:
    """For `down`: the kernel settings as they were, and which of the shared folders did not exist."""
    settings = {
        name: Path("/proc/sys", name).read_text().strip() for name in SETTINGS if Path("/proc/sys", name).exists()
    }
    absent = [folder for folder in KUBELET_FOLDERS if not Path(folder).exists()]
    layout.before.write_text(json.dumps({"settings": settings, "absent": absent}))


def make_bridge(layout: Layout) -> None:
    """The bridge bears the state directory as its alias, so that any checkout finds out whose cluster lives here."""
    # Without a hardware address of its own it takes the lowest of its ports', another one with each pod that comes or goes, and the pods that are there
    # send to the one that they remember: nothing of theirs arrives for half a minute and more.
    run("ip", "link", "add", BRIDGE, "address", HARDWARE_ADDRESS, "type", "bridge")
    run("ip", "link", "set", BRIDGE, "alias", str(layout.state))
    run("ip", "addr", "add", f"{HOST_ADDRESS}/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    # A service address that kube-proxy has no rule for yet must lead nowhere: by the default route some proxy of the machine's network might
    # answer, and the apiserver would keep that connection for its aggregated APIs.
    run("ip", "route", "add", SERVICE_CIDR, "dev", BRIDGE, "src", HOST_ADDRESS)


def bridge_owner() -> Path | None:
    """The state directory of the cluster whose bridge exists, if one does."""
    alias = Path(f"/sys/class/net/{BRIDGE}/ifalias")
    return Path(alias.read_text().strip()) if alias.exists() else None


def cgroup_roots(cgroup: str = CGROUP) -> Iterator[Path]:
    """Our cgroup's folder in every hierarchy (cgroup v1), or the one (v2)."""
    if (CGROUPS / "cgroup.controllers").exists():
        yield CGROUPS / cgroup
        return
    for hierarchy in sorted(CGROUPS.iterdir()):
        if hierarchy.is_dir() and not hierarchy.is_symlink():
            yield hierarchy / cgroup


def make_cgroups(layout: Layout) -> None:
    for root in cgroup_roots(layout.cgroup):
        root.mkdir(exist_ok=True)
        cpus, memory_nodes = root / "cpuset.cpus", root / "cpuset.mems"
        if cpus.exists() and not cpus.read_text().strip():
            cpus.write_text((root.parent / "cpuset.cpus").read_text())
            memory_nodes.write_text((root.parent / "cpuset.mems").read_text())


_GVISOR_SHIM = "containerd-shim-runsc-v1"
_START_GVISOR = """#!/bin/sh
# The shim wants a score below its starter's, which a sandboxed machine allows nobody; in a user namespace it forgives that, and looks here for one.
out=$(unshare --mount --propagation slave sh -c 'mount --bind {folder}/uid_map /proc/$$/uid_map; exec {shim} "$@"' {name} "$@") || exit
# It tells its address as newer containerds want it; 1.6 wants it plain.
case $out in
  *'"address"'*) out=${{out##*'"address":"'}}; out=${{out%%'"'*}} ;;
esac
printf %s "$out"
"""


def _gvisor(layout: Layout, tools: Toolbox) -> str:
    """containerd's configuration of a runtime `runsc`, whose pods have no network at all; empty where the tools hold no gVisor."""
    runsc, shim = tools.find("runsc"), tools.find(_GVISOR_SHIM)
    if runsc is None or shim is None:
        return ""
    folder = layout.state / "shims"
    folder.mkdir(exist_ok=True)
    (folder / "uid_map").write_text("0 0 4294967294\n")
    started = folder / _GVISOR_SHIM
    started.write_text(_START_GVISOR.format(folder=folder, shim=shim, name=_GVISOR_SHIM))
    started.chmod(0o755)
    options = layout.state / "runsc.toml"
    options.write_text(
        f"""binary_name = "{runsc}"
root = "{layout.run}/runsc"
[runsc_config]
  platform = "systrap"
  network = "none"
"""
    )
    return f"""  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc]
    runtime_type = "io.containerd.runsc.v1"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runsc.options]
      TypeUrl = "io.containerd.runsc.v1.options"
      ConfigPath = "{options}"
"""


def start_containerd(layout: Layout, tools: Toolbox) -> Component:
    config = layout.state / "containerd.toml"
    config.write_text(
        f"""version = 2
root = "{layout.containerd}"
state = "{layout.run}/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{layout.containerd_socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{layout.state}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  # There is no CAP_SYS_RESOURCE in a sandboxed machine, so scores may only go up.
  restrict_oom_score_adj = true
  sandbox_image = "{PAUSE_IMAGE}"
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{layout.cni}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{layout.run}/runc"
{_gvisor(layout, tools)}"""
    )
    ranges = [[{"subnet": POD_CIDR, "gateway": HOST_ADDRESS}]]
    addresses = {
        "type": "host-local",
        "dataDir": str(layout.addresses),
        "ranges": ranges,
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": addresses,
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    (layout.cni / "10-bridge.conflist").write_text(
        json.dumps({"cniVersion": "0.4.0", "name": NETWORK, "plugins": [bridge, portmap]})
    )
    containerd = Component("containerd", layout)
    # It looks for a runtime's shim on its PATH.
    containerd.start(
        ["containerd", "-c", config], {"PATH": f"{layout.state / 'shims'}{os.pathsep}{os.environ['PATH']}"}
    )
    return containerd


def wait_containerd(layout: Layout, containerd: Component) -> None:
    def answers() -> bool:
        command = ["ctr", "-a", str(layout.containerd_socket), "version"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    containerd.wait_ready(answers, seconds=READY_SECONDS)


def start_kubelet(layout: Layout, tools: Toolbox) -> None:
    config = layout.state / "kubelet.yaml"
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / f"{layout.node}.crt"),
        "tlsPrivateKeyFile": str(layout.pki / f"{layout.node}.key"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        "port": layout.kubelet_port,
        "healthzPort": 0,
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "clusterDNS": [HOST_ADDRESS],
        "clusterDomain": "cluster.local",
        "failSwapOn": False,
        "podLogsDir": str(layout.pod_logs),
        "volumePluginDir": str(layout.state / "volume-plugins"),
        "maxPods": 200,
        # The disk is shared with everything else on the machine, and its free space may be near the default limits.
        "evictionHard": {"nodefs.available": "1Gi", "imagefs.available": "1Gi", "memory.available": "200Mi"},
        "imageGCHighThresholdPercent": 100,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        # Images come from `ctr import`, none from a registry.
        "serializeImagePulls": True,
    }
    config.write_text(json.dumps(settings))
    Component("kubelet", layout).start(
        [
            *(tools.path("kubelet"), f"--config={config}", f"--kubeconfig={layout.kubeconfig(layout.node)}"),
            *(f"--hostname-override={layout.node}", f"--node-ip={HOST_ADDRESS}"),
            *(f"--root-dir={layout.kubelet}", f"--cert-dir={layout.kubelet}/pki"),
        ]
    )


def start_kube_proxy(layout: Layout, tools: Toolbox) -> None:
    Component("kube-proxy", layout).start(
        [
            *(tools.path("kube-proxy"), f"--kubeconfig={layout.kubeconfig()}", "--proxy-mode=iptables"),
            *(f"--cluster-cidr={CLUSTER_CIDR}", f"--hostname-override={NODE}", "--conntrack-max-per-core=0"),
            # Loopback NodePorts would need route_localnet, a machine-wide setting.
            *("--iptables-localhost-nodeports=false", "--iptables-min-sync-period=200ms"),
        ]
    )


def wait_node(layout: Layout) -> None:
    kubelet = Component("kubelet", layout)
    with admin_client(layout) as client:

        def is_ready() -> bool:
            answer = client.get(f"/api/v1/nodes/{layout.node}")
            conditions = answer.json().get("status", {}).get("conditions", []) if answer.is_success else []
            return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

        kubelet.wait_ready(is_ready, seconds=READY_SECONDS)


def missing_programs() -> dict[str, str]:
    """Program → Debian package, for all that is not here."""
    needed = {
        "containerd": "containerd",
        "ctr": "containerd",
        "runc": "runc",
        "ip": "iproute2",
        "iptables": "iptables",
        "conntrack": "conntrack",
        "busybox": "busybox",
    }
    missing = {program: package for program, package in needed.items() if not shutil.which(program, path=_PATH)}
    if not (CNI_PLUGINS / "bridge").exists():
        missing[str(CNI_PLUGINS / "bridge")] = "containernetworking-plugins"
    return missing


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
