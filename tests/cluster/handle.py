"""What a test is given: one cluster, ours or somebody's, with the few differences named."""

from __future__ import annotations

import fcntl
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster import base_images, foreign, images, installs, pod_mounts, pod_processes, simulated_nodes, teardown
from cluster.binaries import Toolbox
from cluster.components import wait_until
from cluster.errors import ClusterError
from cluster.kubectl import Kubectl
from cluster.layout import CACHE
from cluster.local_cluster import LocalCluster

EVENT_LINES = 60


class ClusterHandle:
    """`local` is the cluster on this machine, or None when the suite runs on a cluster that somebody already has."""

    def __init__(
        self, kubeconfig: Path, local: LocalCluster | None, *, was_started_here: bool = False, image_prefix: str = ""
    ) -> None:
        self.kubeconfig = kubeconfig
        self.was_started_here = was_started_here
        """False on a cluster that ran before the suite and is left running after it."""
        self.tools = local.tools if local else Toolbox()
        self.kubectl = Kubectl(self.tools.path("kubectl"), kubeconfig)
        self._local = local
        self._image_prefix = image_prefix
        self._pulled: set[str] = set()

    @property
    def local(self) -> LocalCluster:
        """For tests that stop parts of the cluster, import images, or touch what pods have on the node; they skip elsewhere."""
        if self._local is None:
            pytest.skip("this test stops or changes parts of the cluster, so it runs only on the project's own one")
        return self._local

    @property
    def is_local(self) -> bool:
        return self._local is not None

    @property
    def host_address(self) -> str:
        """Where a pod reaches a server that a test started on this machine (listening on this address or on 0.0.0.0): on somebody's cluster the
        one that this machine has in the network of the nodes."""
        return self._local.address if self._local is not None else foreign.own_address(self.kubectl)

    def image(self, name: str) -> str:
        """The name under which the cluster knows a test image: `busybox`, `python`, or one that `add_image` brought.

        Raises ClusterError where somebody's cluster cannot pull it."""
        if self._local is not None:
            return f"docker.io/abruzzi-test/{name}:1"
        image = f"{self._image_prefix}{name}:1"
        if image not in self._pulled:
            with self.new_namespace() as namespace:
                foreign.try_image(self.kubectl, image, namespace)
            self._pulled.add(image)
        return image

    def stage_pods(self) -> tuple[str, dict[str, Any]]:
        """Image of stages, and what is added to their pods: on our own cluster this checkout and its environment, by mounts; on somebody's nothing,
        because their image `jobs` holds it all, or what the file of $ABRUZZI_POD_TEMPLATE says."""
        if self._local is not None:
            return self.image("busybox"), pod_mounts.pod_template()
        return self.image("jobs"), foreign.pod_template()

    def add_image(self, image: images.Image) -> str:
        """Imports an image that the node does not have yet. On somebody's cluster it must be in their registry under the prefix."""
        if self._local is not None and image.name not in images.imported(self._local.layout):
            images.import_image(self._local.layout, image)
        return image.name

    def python_image(self) -> str:
        """The image that the project's own start from; on somebody's cluster whatever is under the prefix as `python`."""
        return self.add_image(base_images.python_image()) if self._local is not None else self.image("python")

    def install(self, *operators: str) -> None:
        """Operators by name (installs.OPERATORS), ready to use when it returns; at once when they are there already.

        On somebody's cluster nothing is installed: a test that needs what is not there is skipped with a sentence.
        """
        if self._local is not None:
            installs.install(self.kubectl, self._local.layout, self.tools, operators)
            return
        there = installs.served_crds(self.kubectl)
        if absent := [each.name for each in installs.chosen(operators) if each.crd not in there]:
            pytest.skip(
                f"this cluster has no {', '.join(absent)}, and the suite installs operators only on its own one"
            )

    def restore_etcd(self, name: str) -> None:
        """As LocalCluster's; then the operators are started anew, too, as an administrator would do it: what they have cached of the lost
        future they believe for minutes (Kueue then refuses the pods of every new Job, which it does not find)."""
        self.local.restore_etcd(name)
        installs.restart(self.kubectl)

    def kill_pod(self, name: str) -> None:
        """As pod_processes.kill_pod: its processes are this machine's on our own cluster only; elsewhere the test skips."""
        _ = self.local
        pod_processes.kill_pod(name)

    def add_simulated_nodes(self, count: int) -> list[str]:
        """Names of `count` Ready H800 nodes of 8 GPUs each; they stay for the tests after."""
        simulated_nodes.add(self.local.layout, self.tools, count)
        return [simulated_nodes.node_name(index) for index in range(count)]

    @contextmanager
    def new_namespace(self, labels: Mapping[str, str] | None = None) -> Iterator[str]:
        """A namespace for one test. When the test fails, its events and pods are printed; its end is not waited for."""
        name = f"test-{uuid.uuid4().hex[:10]}"
        self.kubectl.create(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels or {})}}
        )
        try:
            yield name
        except BaseException:
            print(self.what_happened(name))
            raise
        finally:
            self.kubectl.try_run("delete", "namespace", name, "--wait=false")

    def what_happened(self, namespace: str) -> str:
        """Pods and the newest events, for the message of a failed test."""
        pods = self.kubectl.try_run("get", "pods", "-n", namespace, "-o", "wide").stdout
        events = self.kubectl.try_run("get", "events", "-n", namespace, "--sort-by=.lastTimestamp").stdout.splitlines()
        return "\n".join([pods, *events[-EVENT_LINES:]])

    def wait_job(self, name: str, namespace: str, *, ends: str = "Complete", seconds: float = 240.0) -> str:
        """Waits for the Job's end and returns its pod's log; an error when it ends otherwise."""
        condition = ""

        def has_ended() -> bool:
            nonlocal condition
            conditions = self.get("job", name, namespace)["status"].get("conditions", [])
            condition = next(
                (
                    each["type"]
                    for each in conditions
                    if each["status"] == "True" and each["type"] in ("Complete", "Failed")
                ),
                "",
            )
            return bool(condition)

        wait_until(f"job {name} ends", has_ended, seconds=seconds, last_words=lambda: self.what_happened(namespace))
        log = self.kubectl.try_run("logs", f"job/{name}", "-n", namespace).stdout
        if condition != ends:
            raise ClusterError(
                f"job {name} is {condition} and not {ends}; it said:\n{log}\n{self.what_happened(namespace)}"
            )
        return log

    def get(self, kind: str, name: str, namespace: str) -> Any:
        return self.kubectl.json("get", kind, name, "-n", namespace)


@contextmanager
def the_cluster() -> Iterator[ClusterHandle]:
    """Somebody's cluster when KUBECONFIG and ABRUZZI_TEST_IMAGE_PREFIX are both set; else ours.

    Ours is started and ended here, unless it runs already (`make cluster`): then it is used and left running.
    """
    if (somebodys := foreign.named()) is not None:
        kubeconfig, prefix = somebodys
        yield ClusterHandle(kubeconfig, None, image_prefix=prefix)
        return
    local = LocalCluster()
    with _alone():
        was_started = local.up()
        try:
            yield ClusterHandle(local.layout.kubeconfig(), local, was_started_here=was_started)
        finally:
            if was_started:
                local.down()
                if left := teardown.leftovers(local.layout):
                    raise ClusterError("`down` left something behind:\n" + "\n".join(left))


@contextmanager
def _alone() -> Iterator[None]:
    """One suite at a time: another process of pytest waits here, for it would use a cluster that this one stops, restores and takes down."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "cluster.suite").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
