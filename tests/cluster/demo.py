"""`make cluster-demo`: a real Kubernetes on this machine, the platform installed into it by Helm, and a small Kimi K2 trained there as Jobs and a
PyTorchJob that Kueue admits. Everything is taken down at the end; on a terminal only after Ctrl-C.

Stages run in a thin image that mounts this checkout and its environment: so a demonstration takes minutes and not 7 GB of image. `--whole`
(`make cluster-demo WHOLE=1`) builds jobs/Containerfile, and its pods hold all that they run."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cluster import teardown
from cluster.binaries import Toolbox
from cluster.errors import ClusterError
from cluster.handle import ClusterHandle
from cluster.helm_platform import RELEASE, SECRET, HelmPlatform
from cluster.layout import ROOT
from cluster.local_cluster import LocalCluster

RECIPE = ROOT / "recipes/tiny.toml"
OPERATORS = ("training-operator", "kuberay", "kueue")
SHOWN_STAGES = ("corpus", "pretrain", "rl")
SHOWN = "pytorchjobs,rayjobs,jobs,workloads,pods"
POOL = """name = "cpu"
kind = "kubernetes"
flavor = "CPU"
rank = { cpus = 1.0, memory = "4 GiB" }
quota = { cpus = 1.0, memory = "8 GiB" }
node_labels = { "kubernetes.io/os" = "linux" }
"""
T = TypeVar("T")


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: sys.exit(128 + received))
    parser = argparse.ArgumentParser(prog="python -m cluster.demo", description=__doc__)
    parser.add_argument("--whole", action="store_true", help="stages in the true image, of jobs/Containerfile")
    whole = parser.parse_args().whole
    began = time.monotonic()
    local = LocalCluster(tools=Toolbox(allow_build=True))
    was_started = _timed("Kubernetes is up", local.up)
    try:
        code = _on(ClusterHandle(local.layout.kubeconfig(), local, was_started_here=was_started), whole)
    finally:
        if was_started:
            _timed("Kubernetes is down", local.down)
            if left := teardown.leftovers(local.layout):
                raise ClusterError("`down` left something behind:\n" + "\n".join(left))
    _say(f"{'All of it' if code == 0 else 'Failed; all of it'} took {_minutes(time.monotonic() - began)}")
    return code


def _on(cluster: ClusterHandle, whole: bool) -> int:
    _timed(f"{', '.join(OPERATORS)} installed", lambda: cluster.install(*OPERATORS))
    platform = HelmPlatform(cluster)
    try:
        _timed("images of the platform built", lambda: platform.build(lambda line: _say(f"  {line}"), whole=whole))
        _say(
            f"stages run in {'the image of jobs/Containerfile' if whole else 'a thin image that mounts this checkout'}"
        )
        _timed("helm install trial charts/abruzzi-trial", platform.install_trial)
        stages = {"defaultPool": "cpu"}
        print(_timed(f"helm install {RELEASE} charts/abruzzi", lambda: platform.install(stages=stages)), flush=True)
        _timed(f"helm test {RELEASE}", platform.test)
        return _train(cluster, platform)
    finally:
        _timed("helm uninstall", platform.remove)


def _train(cluster: ClusterHandle, platform: HelmPlatform) -> int:
    environment = {**os.environ, "ABRUZZI_URL": platform.url, "ABRUZZI_TOKEN": platform.token}
    command = [str(Path(sys.executable).parent / "abruzzi")]
    subprocess.run([*command, "pools", "apply", "/dev/stdin"], input=POOL, text=True, env=environment, check=True)
    began = time.monotonic()
    _say(f"abruzzi run recipes/{RECIPE.name} --wait")
    shown: dict[str, str] = {}
    run = subprocess.Popen([*command, "run", str(RECIPE), "--wait"], env=environment)
    try:
        while run.poll() is None:
            for stage in SHOWN_STAGES:
                if stage not in shown and (text := _while_running(cluster, platform, stage)):
                    shown[stage] = text
            time.sleep(2)
    finally:
        if run.poll() is None:
            run.terminate()
            run.wait()
    _say(f"the run ended with code {run.returncode} after {_minutes(time.monotonic() - began)}")
    for stage in SHOWN_STAGES:
        print(f"\nWhile `{stage}` ran:\n$ kubectl get {SHOWN} -A\n{shown.get(stage, 'it never did')}", flush=True)
    with platform.client() as client:
        [summary] = client.runs.list()
    _say(f"run {summary.id} is {summary.state}")
    if run.returncode:
        print(platform.last_words(), flush=True)
    elif sys.stdout.isatty() and os.environ.get("CI", "").lower() not in ("1", "true"):
        _stay(cluster, platform)
    return run.returncode


def _while_running(cluster: ClusterHandle, platform: HelmPlatform, stage: str) -> str:
    """What the cluster holds, once a pod of the stage runs; empty before."""
    words = ["get", "pods", "-n", platform.stages, "-l", f"abruzzi.io/stage={stage}"]
    if "Running" not in cluster.kubectl.try_run(*words, "-o", "jsonpath={.items[*].status.phase}").stdout:
        return ""
    return cluster.kubectl.try_run("get", SHOWN, "-A").stdout


def _stay(cluster: ClusterHandle, platform: HelmPlatform) -> None:
    secret = f"kubectl -n {platform.namespace} get secret {SECRET} -o jsonpath='{{.data.ADMIN_TOKEN}}' | base64 -d"
    print(f"\nDashboard: {platform.url}  Its token: KUBECONFIG={cluster.kubeconfig} {secret}\nCtrl-C ends it all.")
    try:
        signal.pause()
    except KeyboardInterrupt:
        print("\nStopping.")


@contextmanager
def _clock(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    _say(f"{what} after {_minutes(time.monotonic() - began)}")


def _timed(what: str, work: Callable[[], T]) -> T:
    with _clock(what):
        return work()


def _say(line: str) -> None:
    print(f"== {line}", flush=True)


def _minutes(seconds: float) -> str:
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s" if seconds >= 60 else f"{seconds:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
