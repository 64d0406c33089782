"""A Run applied by kubectl whose `tokenize` is a RayJob on a real two-node RayCluster: the files are those of one process on this machine, and
nobody speaks to that cluster without its token."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from chart_render import CHART
from cluster.handle import ClusterHandle
from cluster.platform_process import PlatformProcess, open_platform
from cluster.small_stages import CORPUS

from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.recipe import TokenizerConfig
from abruzzi.contracts.states import ArtifactKind
from abruzzi_jobs.data.tokenizer import TOKENIZER_FILE, build_dataset, file_digest, train_tokenizer
from abruzzi_jobs.entrypoints.scratch import files_of, fresh_folder
from abruzzi_operators.kubernetes.resources import RUNS
from abruzzi_operators.supervisor.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RECIPE = f"""
version = 1
name = "on-ray"
{CORPUS}
[[stage]]
id = "tokenize"
kind = "tokenize"
needs = ["corpus"]
[stage.tokenizer]
vocab_size = 300
[stage.resources]
framework = "ray"
ranks = 2
threads = 1
"""
SECONDS = 500.0


class Applied:
    """The Run, and what kubectl says of it and of its RayCluster."""

    def __init__(self, cluster: ClusterHandle, namespace: str) -> None:
        self._kubectl, self._namespace = cluster.kubectl, namespace
        self.answers: set[int] = set()
        """Of the head's dashboard to somebody without the token."""

    def submit(self) -> None:
        self._kubectl("label", "namespace", self._namespace, "abruzzi.io/project=default", "--overwrite")
        self._kubectl.create(RUNS.new("on-ray", self._namespace, spec={"recipe": RECIPE}))

    def status(self) -> dict[str, Any]:
        return self._kubectl.json("get", "run.abruzzi.io", "on-ray", "-n", self._namespace).get("status", {})

    def ray_pods(self) -> dict[str, dict[str, Any]]:
        """By its part: `head`, `worker`."""
        found = self._kubectl.json("get", "pods", "-n", self._namespace, "-l", "ray.io/node-type")["items"]
        return {pod["metadata"]["labels"]["ray.io/node-type"]: pod for pod in found}

    def knock(self) -> None:
        """Without the token."""
        address = self.ray_pods().get("head", {}).get("status", {}).get("podIP")
        if address:
            try:
                answer = httpx.get(f"http://{address}:8265/api/jobs/", trust_env=False, timeout=5.0)
                self.answers.add(answer.status_code)
            except httpx.TransportError:
                pass  # not up yet, or no more

    def wait_end(self) -> tuple[dict[str, Any], set[str]]:
        """Its last status, and the parts of the RayCluster that ran at the same time."""
        deadline, together = time.monotonic() + SECONDS, set()
        while (status := self.status()).get("phase") not in ("Succeeded", "Failed", "Cancelled", "Refused"):
            assert time.monotonic() < deadline, json.dumps(status, indent=1)
            running = {part for part, pod in self.ray_pods().items() if pod["status"].get("phase") == "Running"}
            together = max(together, running, key=len)
            self.knock()
            time.sleep(0.5)
        return status, together


@pytest.fixture
def platform(
    cluster: ClusterHandle, namespace: str, tmp_path: Path, postgres: EmbeddedPostgres
) -> Iterator[PlatformProcess]:
    cluster.install("kuberay")
    cluster.kubectl.apply(*(yaml.safe_load(path.read_text()) for path in (CHART / "crds").iterdir()))
    with open_platform(tmp_path / "platform", cluster, namespace, postgres) as made:
        yield made


def local_digests(corpus: Path, folder: Path) -> dict[str, str]:
    """What one process on this machine makes of the corpus."""
    config = TokenizerConfig(vocab_size=300)
    trained, encoded = fresh_folder(folder / "trained"), fresh_folder(folder / "encoded")
    tokenizer = train_tokenizer(corpus, config, out=trained)
    build_dataset(corpus, tokenizer, config, tokenizer_digest=file_digest(trained / TOKENIZER_FILE), out=encoded)
    made = {**files_of(trained), **files_of(encoded)}
    return {name: file_digest(path) for name, path in made.items()}


def digests(manifest: Manifest) -> dict[str, str]:
    return {entry.path: entry.digest for entry in manifest.files}


@pytest.mark.serial
def test_kubectl_submits_a_tokenize_on_two_nodes_of_ray_that_makes_what_one_process_makes(
    cluster: ClusterHandle, namespace: str, platform: PlatformProcess, tmp_path: Path
) -> None:
    run = Applied(cluster, namespace)
    run.submit()
    status, together = run.wait_end()
    assert status["phase"] == "Succeeded", f"{json.dumps(status, indent=1)}\n{platform.last_words()}"
    cluster.kubectl("wait", "--for=condition=Succeeded", "run.abruzzi.io/on-ray", "-n", namespace, "--timeout=240s")
    print(cluster.kubectl("get", "runs.abruzzi.io", "-n", namespace, "-o", "wide"))
    assert together == {"head", "worker"}
    assert run.answers
    assert run.answers <= {401, 403}
    run_id = status["runId"]
    with platform.client() as client:
        made = list(client.artifacts.list(run_id))
        corpus = next(a.id for a in made if a.kind is ArtifactKind.CORPUS)
        client.artifacts.pull(corpus, tmp_path / "corpus")
        ours = [client.artifacts.manifest(a.id) for a in made if a.stage_id == "tokenize"]
        assert {k: v for m in ours for k, v in digests(m).items()} == local_digests(tmp_path / "corpus", tmp_path)
        attempt = platform.attempts(run_id, "tokenize")[-1]
        lines = [line.text for line in client.logs.follow(attempt.id, rank=0, poll_seconds=0.1)]
    told = [line for line in lines if "nodes of Ray" in line]
    print(told)
    assert len(told) == 1
    assert told[0].endswith("of 2 nodes of Ray")

    def left() -> list[str]:
        found = cluster.kubectl.json("get", "rayjobs,rayclusters,jobs,secrets,pods", "-n", namespace)["items"]
        return [each["kind"] for each in found if "abruzzi.io/attempt" in each["metadata"].get("labels", {})]

    platform.until(lambda: not left(), seconds=240)
