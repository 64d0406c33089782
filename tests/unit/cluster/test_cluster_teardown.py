"""The parts of `down` that decide what is ours and what is somebody else's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cluster import local_cluster, teardown
from cluster.binaries import Toolbox
from cluster.components import Component
from cluster.errors import CannotRunHere, ClusterError
from cluster.layout import Layout

SAVED = """*nat
:PREROUTING ACCEPT [5:300]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
:KUBE-SERVICES - [0:0]
:CNI-7225237fe728cb7ce6e5590e - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 10.244.0.2/32 -m comment --comment "name: \\"abruzzi-test\\"" -j CNI-7225237fe728cb7ce6e5590e
-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-NPX46M4PTMTKRN6Y
-A DOCKER -i docker0 -j RETURN
COMMIT
"""


def test_only_our_chains_and_the_rules_that_lead_to_them_are_removed(monkeypatch: pytest.MonkeyPatch):
    restored: list[str] = []
    monkeypatch.setattr(teardown, "_saved", lambda table: SAVED.splitlines() if table == "nat" else [])
    monkeypatch.setattr(teardown, "run", lambda *command, input_text: restored.append(input_text))
    teardown.remove_rules()
    assert len(restored) == 1
    lines = restored[0].splitlines()
    assert lines[0] == "*nat"
    assert lines[-1] == "COMMIT"
    assert '-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES' in lines
    assert "-X KUBE-SERVICES" in lines
    assert not [line for line in lines if "DOCKER" in line]
    assert lines.index("-X KUBE-SERVICES") > max(i for i, line in enumerate(lines) if line.startswith("-D"))


def test_a_process_that_took_over_a_recorded_pid_is_not_ours(tmp_path: Path):
    layout = Layout(tmp_path)
    layout.make()
    stranger = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        component = Component("kubelet", layout)
        component.start([sys.executable, "-c", "pass"])
        record = layout.run / "kubelet.json"
        recorded = json.loads(record.read_text())
        recorded["process"].update(pid=stranger.pid, start_time="1")
        record.write_text(json.dumps(recorded))
        assert component.pid is None
        component.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.communicate()


def test_a_component_is_started_again_with_its_command_and_never_twice(tmp_path: Path):
    layout = Layout(tmp_path)
    layout.make()
    component = Component("sleeper", layout)
    with pytest.raises(ClusterError, match="never started"):
        component.start()
    component.start([sys.executable, "-c", "import signal; signal.pause()"])
    first = component.pid
    with pytest.raises(ClusterError, match="runs already"):
        component.start()
    component.stop()
    assert component.pid is None
    component.start()
    assert component.pid not in (None, first)
    component.stop()


def test_a_machine_that_cannot_hold_a_cluster_is_told_everything_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(local_cluster.node, "missing_programs", lambda: {"containerd": "containerd", "runc": "runc"})
    monkeypatch.setattr(local_cluster.node, "bridge_owner", lambda: None)
    cluster = local_cluster.LocalCluster(Layout(tmp_path), Toolbox(tmp_path / "empty"))
    monkeypatch.setattr(Toolbox, "find", lambda self, name: None)
    with pytest.raises(CannotRunHere) as told:
        cluster.up()
    for word in ("root", "apt-get install containerd runc", "kube-apiserver", "ABRUZZI_CLUSTER_TOOLS"):
        assert word in str(told.value)
    assert list(tmp_path.iterdir()) == []


def test_two_clusters_do_not_fit_and_the_owner_of_the_other_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = Layout(tmp_path / "other")
    other.make()
    living = Component("apiserver", other)
    living.start([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        monkeypatch.setattr(local_cluster, "what_is_missing", lambda tools: [])
        monkeypatch.setattr(local_cluster.node, "bridge_owner", lambda: other.state)
        cluster = local_cluster.LocalCluster(Layout(tmp_path / "ours"), Toolbox(tmp_path))
        with pytest.raises(ClusterError, match=f"the cluster of {other.state} runs on this machine"):
            cluster.up()
    finally:
        living.stop()


def test_only_the_firewalls_sets_of_addresses_are_destroyed_and_only_its_chains_without_a_down(
    monkeypatch: pytest.MonkeyPatch,
):
    """kube-proxy's chains stay, for the cluster goes on."""
    saved = ":KUBE-ROUTER-FORWARD - [0:0]\n:KUBE-POD-FW-ABC - [0:0]\n:KUBE-FORWARD - [0:0]\n-A FORWARD -j KUBE-ROUTER-FORWARD"
    done: list[str] = []

    def run(*command: str, input_text: str = "", check: bool = True) -> str:
        done.append(" ".join(command) + input_text)
        return "KUBE-SRC-ABC\nkube-router-svip\nblocklist\n" if command[1:] == ("list", "-name") else ""

    monkeypatch.setattr(teardown, "_saved", lambda table: saved.splitlines())
    monkeypatch.setattr(teardown.shutil, "which", lambda name: f"/sbin/{name}")
    monkeypatch.setattr(teardown, "run", run)
    teardown.remove_firewall()
    rules, *sets = done
    assert "-D FORWARD -j KUBE-ROUTER-FORWARD" in rules
    assert "-X KUBE-POD-FW-ABC" in rules
    assert "KUBE-FORWARD" not in rules
    assert sets == ["ipset list -name", "ipset destroy KUBE-SRC-ABC", "ipset destroy kube-router-svip"]
