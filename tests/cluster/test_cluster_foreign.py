"""The suite on a cluster that somebody already has: our own one, seen as if it were somebody's. Nothing of this machine is asked but its address."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster.errors import ClusterError
from cluster.handle import ClusterHandle
from executor_bench import LogApi

OURS = "docker.io/abruzzi-test/"
"""Where our own node has its test images."""


def test_pods_there_are_made_of_its_own_images_and_reach_this_machine(cluster: ClusterHandle, namespace: str) -> None:
    kubeconfig = cluster.local.layout.kubeconfig()
    somebodys = ClusterHandle(kubeconfig, None, image_prefix=OURS)
    assert not somebodys.is_local
    logs = LogApi(somebodys.host_address)
    try:
        url = f"{logs.url}/healthz"
        container = {
            "name": "main",
            "image": somebodys.image("busybox"),
            "command": ["sh", "-c", f"wget -S -O - {url} 2>&1 || true"],
        }
        spec = {"containers": [container], "restartPolicy": "Never"}
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "asks"},
            "spec": {"backoffLimit": 0, "template": {"spec": spec}},
        }
        cluster.kubectl.create(job, namespace=namespace)
        assert "HTTP/1" in somebodys.wait_job("asks", namespace)
    finally:
        logs.close()


def test_an_image_that_is_not_there_is_said_with_the_kubelets_words_and_the_remedy(cluster: ClusterHandle) -> None:
    somebodys = ClusterHandle(Path(cluster.kubeconfig), None, image_prefix="registry.invalid/abruzzi-")
    with pytest.raises(ClusterError) as raised:
        somebodys.image("busybox")
    said = str(raised.value)
    assert said.startswith("this cluster cannot pull registry.invalid/abruzzi-busybox:1 (ErrImagePull: ")
    assert "see that ABRUZZI_TEST_IMAGE_PREFIX is where its images are" in said
