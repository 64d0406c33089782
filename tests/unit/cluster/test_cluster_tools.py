"""How the cluster's binaries are found, and the plan by which missing ones are built; nothing is built here."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from cluster import binaries
from cluster.__main__ import main
from cluster.binaries import TOOLS, TOOLS_MODULE, Toolbox, build_command, go_version
from cluster.errors import ClusterError


def put(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)
    return folder / name


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(binaries, "CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "cluster-tools"


def test_the_named_folder_comes_before_the_cache(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ABRUZZI_CLUSTER_TOOLS", str(tmp_path / "given"))
    in_cache = put(cache, "etcd")
    assert Toolbox().path("etcd") == in_cache
    given = put(tmp_path / "given", "etcd")
    assert Toolbox().path("etcd") == given


def test_what_is_missing_is_named_with_the_command_that_builds_it(tmp_path: Path, cache: Path):
    tools = Toolbox(tmp_path / "empty")
    assert tools.missing(["etcd", "kubelet"]) == ["etcd", "kubelet"]
    with pytest.raises(ClusterError, match=r"kubelet is in neither .*ABRUZZI_CLUSTER_TOOLS.*make cluster-tools"):
        tools.path("kubelet")


def test_an_unknown_tool_is_refused_with_the_names_there_are(tmp_path: Path, cache: Path):
    with pytest.raises(ClusterError, match=r"no cluster tool is called 'kubeadm'; there are coredns, etcd"):
        Toolbox(tmp_path, allow_build=True).path("kubeadm")


def test_a_tool_of_another_module_is_built_inside_it_with_its_own_sums():
    tool = TOOLS["kueue"]
    command = build_command(tool, "go", Path("/modules/kueue"), Path("/cache/kueue"))
    assert command[:4] == ["go", "build", "-C", "/modules/kueue"]
    assert "-mod=readonly" in command
    assert command[-3:] == ["-o", "/cache/kueue", "./cmd/kueue"]


def test_a_role_of_hyperkube_is_built_by_building_hyperkube(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    built: list[list[str]] = []

    def record(command: list[str], what: str) -> str:
        built.append(command)
        put(cache, Path(command[command.index("-o") + 1]).name)
        return ""

    monkeypatch.setattr(binaries, "run_go", record)
    monkeypatch.setattr(binaries, "go_command", lambda: "go")
    tools = Toolbox(tmp_path / "empty", allow_build=True)
    assert tools.path("kubelet").resolve() == cache / "hyperkube"
    assert tools.path("kube-proxy").resolve() == cache / "hyperkube"
    assert [command[-1] for command in built] == ["./hyperkube"]
    assert built[0][built[0].index("-C") + 1] == str(TOOLS_MODULE)


def test_a_module_with_another_content_than_the_pinned_one_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(binaries, "run_go", lambda command, what: '{"Dir": "/somewhere", "Sum": "h1:other"}')
    monkeypatch.setattr(binaries, "go_command", lambda: "go")
    with pytest.raises(ClusterError, match="not the same code"):
        binaries.module_folder(binaries.KUEUE)


def test_every_tool_is_pinned_by_version_and_sum():
    ours = (TOOLS_MODULE / "go.mod").read_text()
    sums = (TOOLS_MODULE / "go.sum").read_text()
    for tool in TOOLS.values():
        if tool.module:
            assert re.fullmatch(r"h1:[A-Za-z0-9+/]{43}=", tool.module.sum)
    for module, version in (
        ("k8s.io/kubernetes", f"v{binaries.KUBERNETES_VERSION}"),
        ("go.etcd.io/etcd/server/v3", "v3.6.5"),
    ):
        assert f"{module} {version}\n" in ours
        assert f"{module} {version} h1:" in sums


def test_staging_modules_have_the_version_of_kubernetes():
    replaced = re.findall(r"^\t(k8s\.io/\S+) => (\S+) (\S+)$", (TOOLS_MODULE / "go.mod").read_text(), re.MULTILINE)
    assert len(replaced) > 25
    expected = "v0." + binaries.KUBERNETES_VERSION.partition(".")[2]
    assert all(name == target and version == expected for name, target, version in replaced)


@pytest.mark.parametrize(
    ("text", "version"),
    [("go version go1.26.8 linux/amd64", (1, 26)), ("go version go1.9 linux/arm64", (1, 9)), ("not go at all", None)],
)
def test_gos_version_is_read(text: str, version: tuple[int, int] | None):
    assert go_version(text) == version


def test_an_old_go_is_passed_over_for_the_wheels(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    old = put(tmp_path / "bin", "go")
    old.write_text("#!/bin/sh\necho go version go1.20.1 linux/amd64\n")
    wheel = put(cache.parent / "go" / "bin", "go")
    monkeypatch.setattr(shutil, "which", lambda name, **_: str(old))
    assert binaries.go_command() == str(wheel)
    old.write_text("#!/bin/sh\necho go version go1.30.0 linux/amd64\n")
    assert binaries.go_command() == str(old)


def test_what_only_longer_proofs_use_is_not_built_for_everybody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    asked: list[str] = []
    monkeypatch.setattr(Toolbox, "find", lambda self, name: None)
    monkeypatch.setattr(Toolbox, "path", lambda self, name: asked.append(name) or tmp_path)
    assert main(["build-tools"]) == 0
    assert "kueue" in asked
    assert "kube-router" not in asked
    assert main(["build-tools", "kube-router"]) == 0
    assert asked[-1] == "kube-router"


def test_a_failed_build_says_why_and_not_what_it_has_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(binaries, "CACHE", tmp_path)
    script = "echo 'write $WORK/b001: no space left on device' >&2; for i in $(seq 40); do echo \"go: downloading a v1.$i.0\" >&2; done; exit 1"
    with pytest.raises(ClusterError, match="no space left on device") as raised:
        binaries.run_go(["sh", "-c", script], "building kueue")
    assert "downloading a v1.40.0" not in str(raised.value)
