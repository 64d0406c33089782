"""Images without a registry: the base image's stand-in runs, and a Containerfile is built unchanged on top of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cluster.base_images import node_image, python_image
from cluster.container_builds import Builder
from cluster.handle import ClusterHandle
from cluster.layout import ROOT

CONTAINERFILE = """FROM docker.io/library/python:3.11-slim
RUN pip install --no-cache-dir sortedcontainers==2.4.0 && useradd --uid 10001 --create-home abruzzi
WORKDIR /app
COPY greeting.py ./
USER 10001
CMD ["python", "greeting.py"]
"""
GREETING = "import os, sortedcontainers; print('built', os.getuid(), list(sortedcontainers.SortedList([2, 1])))"


def job(name: str, image: str, command: list[str] | None = None) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "Never",
        **({"command": command} if command else {}),
    }
    spec = {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def test_a_containerfile_is_built_from_the_stand_in_of_its_base_and_runs(
    cluster: ClusterHandle, namespace: str, tmp_path: Path
):
    (tmp_path / "Containerfile").write_text(CONTAINERFILE)
    (tmp_path / "greeting.py").write_text(GREETING)
    name = "docker.io/abruzzi-test/greeting:1"
    Builder(cluster.local, [python_image()]).build(tmp_path / "Containerfile", name, context=tmp_path)
    cluster.kubectl.create(job("greeting", name), namespace=namespace)
    assert cluster.wait_job("greeting", namespace, seconds=300) == "built 10001 [1, 2]\n"


@pytest.mark.prove
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_projects_own_image_is_built_and_knows_its_commands(cluster: ClusterHandle, namespace: str):
    """Half an hour and some 15 GB of disk: it installs torch."""
    name = "docker.io/library/abruzzi:0.1.0"
    Builder(cluster.local, [python_image(), node_image()]).build(ROOT / "Containerfile", name)
    cluster.kubectl.create(job("abruzzi", name, ["abruzzi", "validate", "recipes/tiny.toml"]), namespace=namespace)
    assert "tiny-k2, 7 stages" in cluster.wait_job("abruzzi", namespace, seconds=300)


NO_TORCH = "import importlib.util as u; assert u.find_spec('torch') is None"
PARTS = {
    "operators": f"{NO_TORCH}; import abruzzi_operators.controller.cluster",
    "platform": f"{NO_TORCH}; import celery, abruzzi.workers.steps",
    "api": f"{NO_TORCH}; import abruzzi_api.app",
    "jobs": "import torch, abruzzi_jobs.entrypoints.main, abruzzi_operators.launcher.pod",
}


@pytest.mark.prove
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", PARTS)
def test_the_image_of_each_part_is_built_and_holds_what_it_needs(part: str, cluster: ClusterHandle, namespace: str):
    name = f"docker.io/library/abruzzi-{part}:0.1.0"
    bases = [python_image(), node_image()] if part == "api" else [python_image()]
    Builder(cluster.local, bases).build(ROOT / part / "Containerfile", name)
    told = f"{PARTS[part]}; print('all there')"
    cluster.kubectl.create(job(part, name, ["python", "-c", told]), namespace=namespace)
    assert cluster.wait_job(part, namespace, seconds=300).splitlines()[-1:] == ["all there"]
