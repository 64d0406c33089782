"""Up in well under a minute, down without a trace, and up again over the remains of a crash."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest
from cluster import teardown
from cluster.components import wait_until
from cluster.errors import ClusterError
from cluster.handle import ClusterHandle
from cluster.local_cluster import PARTS, LocalCluster

MOST_SECONDS_UP = 120.0
"""On a busy machine; alone it takes less than half a minute."""


@pytest.fixture
def ours(cluster: ClusterHandle) -> Iterator[LocalCluster]:
    """The suite's cluster, which these tests end and start again; whatever they do, it is up for the tests after them."""
    if not cluster.was_started_here:
        pytest.skip("somebody's `make cluster` runs here and would be restarted; `make cluster-down` first")
    local = cluster.local
    yield local
    local.up()


def start_pod(cluster: ClusterHandle, name: str) -> None:
    container = {"name": "main", "image": cluster.image("busybox"), "command": ["sleep", "600"]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    wait_until(
        "the namespace has its service account",
        lambda: cluster.kubectl.try_run("get", "serviceaccount", "default").returncode == 0,
        seconds=240,
    )
    cluster.kubectl.create(pod)
    cluster.kubectl.wait(f"pod/{name}", "condition=Ready")


def test_down_leaves_nothing_and_may_be_repeated_and_up_takes_less_than_a_minute(
    cluster: ClusterHandle, ours: LocalCluster
):
    start_pod(cluster, "lives")
    assert len(teardown.leftovers(ours.layout)) > len(PARTS), "what a running cluster consists of is seen"
    ours.down()
    assert teardown.leftovers(ours.layout) == []
    ours.down()
    began = time.monotonic()
    assert ours.up()
    assert time.monotonic() - began < MOST_SECONDS_UP
    assert not ours.up(), "a second up finds it running"


def test_up_cleans_what_a_crash_left_and_the_old_pods_are_gone(cluster: ClusterHandle, ours: LocalCluster):
    start_pod(cluster, "from-before")
    for part in PARTS:
        ours.component(part).kill(signal.SIGKILL)
    assert not ours.is_up()
    assert [line for line in teardown.leftovers(ours.layout) if line.startswith("process ")], "its containers live on"
    assert ours.up()
    assert cluster.kubectl.try_run("get", "pod", "from-before").returncode != 0
    start_pod(cluster, "afterwards")


def test_a_stopped_apiserver_comes_back_with_everything(cluster: ClusterHandle, namespace: str):
    apiserver = cluster.local.component("apiserver")
    apiserver.stop()
    assert cluster.kubectl.try_run("get", "namespace", namespace).returncode != 0
    apiserver.start()
    cluster.local.wait_ready()
    assert cluster.get("namespace", namespace, namespace)["status"]["phase"] == "Active"


def test_etcd_can_be_set_back_to_an_older_state(cluster: ClusterHandle, namespace: str):
    local = cluster.local
    local.save_etcd(namespace)
    cluster.kubectl("create", "configmap", "later", "-n", namespace)
    local.restore_etcd(namespace)
    assert cluster.kubectl.try_run("get", "configmap", "later", "-n", namespace).returncode != 0
    assert cluster.get("namespace", namespace, namespace)["status"]["phase"] == "Active"


def test_a_part_that_ends_at_once_is_named_with_its_last_words(cluster: ClusterHandle):
    broken = cluster.local.component("broken")
    broken.start(["/bin/sh", "-c", "echo no such flag; exit 1"])
    with pytest.raises(ClusterError, match=r"broken ended while it should have started(.|\n)*no such flag"):
        broken.wait_ready(lambda: False, seconds=10)
