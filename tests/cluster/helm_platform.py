"""The platform as an operator installs it: images of the project's own Containerfiles on the real node, the charts by helm, a client through the Service.

Stages run in a thin image that mounts this checkout, its environment and torch (4.5 GB) from the node by claims, as `stages.podTemplate` lets any
operator do, so that the namespace of stages enforces restricted Pod Security all the same. `whole=True` builds the true image of the stages instead.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from base64 import b64decode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cluster import images
from cluster.base_images import debian_image, go_caches, go_image, node_image, python_image
from cluster.components import wait_until
from cluster.container_builds import Builder
from cluster.errors import ClusterError
from cluster.handle import ClusterHandle
from cluster.layout import ROOT
from cluster.pod_mounts import pod_template

from abruzzi.client.client import Client
from abruzzi.contracts.errors import AbruzziError

CHART, TRIAL_CHART = ROOT / "charts/abruzzi", ROOT / "charts/abruzzi-trial"
RELEASE, TRIAL = "abruzzi", "trial"
SECRET = f"{TRIAL}-platform"
TAG = "0.1.0"
USER_ID = 10001
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
HELM_SECONDS = 420
PARTS = {"api": "abruzzi-api", "operators": "abruzzi-operators", "platform": "abruzzi-worker"}
"""Folder of the Containerfile: repository, as the chart names it."""
_SMALL = {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}
"""The machine's two cores are for stages, too."""


class HelmPlatform:
    """`build`, then `install_trial`, then `install`; `remove` takes away whatever there is of it."""

    def __init__(self, cluster: ClusterHandle, namespace: str = "abruzzi") -> None:
        self._cluster = cluster
        self.namespace, self.stages, self.sandboxes = namespace, f"{namespace}-stages", f"{namespace}-boxes"
        self._volumes = cluster.local.layout.state / "volumes" / namespace
        self._mounts = pod_template()
        self._whole = False

    # Images

    def build(self, say: Callable[[str], object] = str, *, whole: bool = False, s3: bool = False) -> None:
        """All images of both charts, and the Containerfile of the stages too when `whole` (some 15 GB of disk and many minutes).

        `s3`: MinIO by its Containerfile, too (six minutes of two processors the first time), and not the same version's binary of the tools.
        """
        self._whole = whole
        began = time.monotonic()
        bases = [python_image(), node_image(), debian_image(), *([go_image()] if s3 else [])]
        builder = Builder(self._cluster.local, bases)
        say(f"base images after {time.monotonic() - began:.0f} s")
        parts = PARTS | ({"jobs": "abruzzi-jobs"} if whole else {})
        trial = TRIAL_CHART / "images"
        builds = [(ROOT / part / "Containerfile", repository, ROOT) for part, repository in parts.items()]
        servers = ("postgres", "redis", *(["s3"] if s3 else []))
        builds += [(trial / name / "Containerfile", f"abruzzi-trial-{name}", trial / name) for name in servers]

        def build(containerfile: Path, repository: str, context: Path) -> None:
            began = time.monotonic()
            caches = go_caches() if repository == "abruzzi-trial-s3" else None
            builder.build(containerfile, _image(repository), context=context, caches=caches)
            say(f"{containerfile.relative_to(ROOT)} built and on the node after {time.monotonic() - began:.0f} s")

        # Two at a time: half of a build is waiting for registries.
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(build, *each) for each in builds]:
                done.result()
        if not s3:
            minio = self._cluster.tools.path("minio")  # the binary that its Containerfile would build for six minutes
            self._cluster.add_image(images.Image(_image("abruzzi-trial-s3"), {"usr/local/bin/minio": minio}))
        if not whole:
            self._cluster.add_image(images.busybox_image(_image("abruzzi-jobs")))

    # What an operator does

    def install_trial(self) -> None:
        shutil.rmtree(
            self._volumes, ignore_errors=True
        )  # data of an earlier one, whose Secret has gone with its namespace
        self._cluster.kubectl.apply(_namespace(self.namespace))
        for name in (f"data-{TRIAL}-postgres-0", f"data-{TRIAL}-s3-0"):
            self._folder_for(name)
        values = {"resources": dict.fromkeys(("postgres", "redis", "s3"), _SMALL), "persistence": {"storageClass": ""}}
        self._helm("install", TRIAL, TRIAL_CHART, "--wait", values=values)

    def make_claim(self, name: str) -> Path:
        """Of the release's namespace; the folder of this machine that it stands for."""
        folder = self._folder_for(name)
        self._cluster.kubectl.apply(_claim(name, self.namespace, f"{self.namespace}-{name}", "ReadWriteOnce"))
        return folder

    def folder_of(self, claim: str) -> Path:
        """Of this machine, that a claim of the release's namespace stands for."""
        return self._volumes / claim

    def install(self, chart: Path = CHART, **more: Any) -> str:
        said = self._helm("install", RELEASE, chart, "--wait", values=self.values(**more))
        self._bind_mounts()
        return said

    def apply(self, **more: Any) -> None:
        """This chart with these values, whether it is installed or not."""
        self._helm("upgrade", "--install", RELEASE, CHART, "--wait", values=self.values(**more))
        self._bind_mounts()

    def upgrade(self, chart: Path = CHART, **more: Any) -> str:
        return self._helm("upgrade", RELEASE, chart, "--wait", values=self.values(**more))

    def rollback(self, revision: int) -> str:
        return self._helm("rollback", RELEASE, str(revision), "--wait")

    def test(self) -> str:
        return self._helm("test", RELEASE)

    def uninstall(self, release: str = RELEASE) -> str:
        return self._helm("uninstall", release, "--wait")

    def remove(self) -> None:
        """Never raises: what is not there is gone already."""
        for release in (RELEASE, TRIAL):
            self._try_helm("uninstall", release)
        kubectl = self._cluster.kubectl
        for name in (self.sandboxes, self.stages, self.namespace):
            kubectl.try_run("delete", "namespace", name, "--wait=false")
        kubectl.try_run("delete", "persistentvolume", "-l", f"abruzzi-test/platform={self.namespace}", "--wait=false")

    def values(self, **more: Any) -> dict[str, Any]:
        store = {"endpoint": f"{TRIAL}-s3.{self.namespace}.svc:9000", "bucket": "abruzzi", "secure": False}
        s3 = {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "s3"}}}
        peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}}, **s3}
        stages: dict[str, Any] = {"namespace": {"name": self.stages}, **more.pop("stages", {})}
        if not self._whole:
            stages["podTemplate"] = {
                "volumes": [
                    {"name": volume["name"], "persistentVolumeClaim": {"claimName": volume["name"], "readOnly": True}}
                    for volume in self._mounts["volumes"]
                ],
                "volume_mounts": self._mounts["volume_mounts"],
                "env": self._mounts["env"],
            }
        parts = {part: {"resources": _SMALL} for part in ("api", "controller", "beat", "migrate")}
        workers = {"resources": _SMALL, "concurrency": 1}
        policy = {"store": {"to": [peer], "ports": [9000]}}
        return {"existingSecret": SECRET, "store": store, "stages": stages, "workers": workers, "networkPolicy": policy, **parts, **more}  # fmt: skip

    # What a person does

    @property
    def url(self) -> str:
        """By the Service's own address: this machine is a node."""
        service = self._cluster.get("service", f"{RELEASE}-abruzzi-api", self.namespace)
        return f"http://{service['spec']['clusterIP']}:8600"

    @property
    def token(self) -> str:
        return b64decode(self._cluster.get("secret", SECRET, self.namespace)["data"]["ADMIN_TOKEN"]).decode()

    def client(self) -> Client:
        return Client(self.url, self.token, retry_seconds=120.0)

    # What is there

    def pods(self) -> dict[str, dict[str, Any]]:
        """Of the platform's release, those that are not being ended."""
        selector = f"app.kubernetes.io/instance={RELEASE}"
        found = self._cluster.kubectl.json("get", "pods", "-n", self.namespace, "-l", selector)["items"]
        return {pod["metadata"]["name"]: pod for pod in found if "deletionTimestamp" not in pod["metadata"]}

    def starts(self, run_id: str) -> dict[str, int]:
        """How often a container of each of the run's pods was started, by the kubelet's events."""
        events = self._cluster.kubectl.json("get", "events", "-n", self.stages)["items"]
        found: dict[str, int] = {}
        for event in events:
            name = event["involvedObject"]["name"]
            if event["reason"] == "Started" and run_id in name:
                found[name] = found.get(name, 0) + int(event.get("count") or 1)
        return found

    def last_words(self) -> str:
        """The nearest first: readers of a long failure see its beginning."""
        stages = self._cluster.kubectl.try_run("describe", "pods", "-n", self.stages).stdout[-5000:]
        said = [
            self._log(self.namespace, part)
            for part in ("controller", "api", "worker", "migrate", "beat", "postgres", "s3")
        ]
        happened = [self._cluster.what_happened(each) for each in (self.stages, self.namespace, self.sandboxes)]
        return "\n".join([self._runs(), stages, *said, self._log(self.sandboxes, "sandboxes"), *happened])

    def _runs(self) -> str:
        """What the API says of each stage and its attempts, or why it says nothing."""
        lines = []
        try:
            with Client(self.url, self.token, retry_seconds=5.0) as client:
                for run in [client.runs.get(each.id) for each in client.runs.list()]:
                    lines.append(f"run {run.id}: {run.state} {run.reason or ''}")
                    for stage in run.detail:
                        lines.append(f"  {stage.id}: {stage.state} {stage.reason or ''}")
                        lines += [f"    {each.number}: {each.state} {each.reason or ''}" for each in stage.attempts]
        except (AbruzziError, ClusterError) as error:
            lines.append(f"the API says nothing of runs: {error!r}")
        return "\n".join(lines)

    def _log(self, namespace: str, component: str) -> str:
        label = f"app.kubernetes.io/component={component}"
        log = self._cluster.kubectl.try_run("logs", "-n", namespace, "-l", label, "--tail=40", "--prefix").stdout
        return f"--- {component}\n{log}"

    def wait(self, what: str, condition: Callable[[], object], *, seconds: float) -> None:
        wait_until(what, condition, seconds=seconds, last_words=self.last_words)

    # Inside

    def _folder_for(self, claim: str) -> Path:
        folder = self.folder_of(claim)
        folder.mkdir(parents=True, exist_ok=True)
        os.chown(folder, USER_ID, USER_ID)
        self._cluster.kubectl.apply(self._volume(claim, folder, self.namespace, "ReadWriteOnce"))
        return folder

    def _bind_mounts(self) -> None:
        """The node's folders as volumes of the namespace of stages, which the chart has made. Bound when it returns: a pod that finds a claim unbound waits
        until the scheduler looks again, which may be five minutes."""
        if self._whole:
            return
        for volume in self._mounts["volumes"]:
            name, path = volume["name"], Path(volume["hostPath"]["path"])
            self._cluster.kubectl.apply(
                self._volume(name, path, self.stages, "ReadOnlyMany"),
                _claim(name, self.stages, f"{self.stages}-{name}", "ReadOnlyMany"),
            )
        for volume in self._mounts["volumes"]:
            claim = f"persistentvolumeclaim/{volume['name']}"
            self._cluster.kubectl.wait(claim, "jsonpath={.status.phase}=Bound", namespace=self.stages, seconds=60)

    def _volume(self, claim: str, path: Path, namespace: str, mode: str) -> dict[str, Any]:
        labels = {"abruzzi-test/platform": self.namespace}
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{namespace}-{claim}", "labels": labels},
            "spec": {
                "capacity": {"storage": "100Gi"},
                "accessModes": [mode],
                "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": str(path)},
                "claimRef": {"namespace": namespace, "name": claim},
            },
        }

    def _helm(self, *words: str | Path, values: dict[str, Any] | None = None) -> str:
        """Its standard output; ClusterError with its words and the state of everything when it fails."""
        done = self._try_helm(*words, values=values)
        if done.returncode:
            command = " ".join(str(word) for word in words)
            raise ClusterError(f"`helm {command}` ended with {done.returncode}: {done.stderr}\n{self.last_words()}")
        return done.stdout

    def _try_helm(self, *words: str | Path, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        where = ["--kubeconfig", str(self._cluster.kubeconfig), "--namespace", self.namespace]
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(values or {}, file)
            file.flush()
            given = ["--values", file.name] if values is not None else []
            command = [
                str(self._cluster.tools.path("helm")),
                *map(str, words),
                *where,
                *given,
                f"--timeout={HELM_SECONDS}s",
            ]
            return subprocess.run(command, capture_output=True, text=True, timeout=HELM_SECONDS + 120, check=False)


def _image(repository: str) -> str:
    return f"docker.io/library/{repository}:{TAG}"


def _namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}


def _claim(name: str, namespace: str, volume: str, mode: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": [mode],
            "storageClassName": "",
            "volumeName": volume,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
