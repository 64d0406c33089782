"""`rl` as a RayJob of two pods, each with an inference replica, the trainer beside the first: a worker's pod is deleted while an iteration is made, then the
head's. The weights and the rollouts are those of one process on this machine, bit for bit where the pods are on it, too: nothing was lost, nothing trained on
twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cluster.handle import ClusterHandle
from cluster.platform_process import PlatformProcess, open_platform
from cluster.small_stages import CORPUS, TOKENIZE
from conftest import Disturbed

from abruzzi.client.client import Client
from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.states import ArtifactKind, RunState
from abruzzi_jobs.data.row_shards import read_rows
from abruzzi_operators.supervisor.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.slow, pytest.mark.prove, pytest.mark.timeout(1800)]

SECONDS = 700.0
MEMORY = "5 GB"
"""Of a pod: Ray itself, trainer, replica, worker and its processes for rewards, each with torch."""
ITERATIONS, GROUPS, MEMBERS = 80, 4, 4
ON_RAY = 'framework = "ray"\nranks = 2\n'
RECIPE = f"""
version = 1
name = "rl-on-ray"
{CORPUS}{TOKENIZE}
[[stage]]
id = "pretrain"
kind = "pretrain"
needs = ["tokenize"]
[stage.model]
preset = "nano"
vocab_size = 300
max_position = 512
[stage.schedule]
tokens = 2048
warmup_steps = 1
[stage.batch]
sequences = 2
sequence_length = 256
[stage.resources]
threads = 1

[[stage]]
id = "sft"
kind = "sft"
needs = ["pretrain", "tokenize"]
[[stage.data.gyms]]
name = "arithmetic"
conversations = 24
[stage.data]
held_out_fraction = 0.0
[stage.schedule]
epochs = 1.0
[stage.batch]
sequences = 2
sequence_length = 255
[stage.resources]
threads = 1

[[stage]]
id = "rl"
kind = "rl"
needs = ["sft"]
[stage.rl]
iterations = {ITERATIONS}
groups_per_iteration = {GROUPS}
group_size = {MEMBERS}
budget = {{ tokens = 32 }}
held_out = {{ every_iterations = 0 }}
[[stage.rl.environments]]
name = "arithmetic"
[stage.optimizer]
peak_lr = 1e-3
[stage.checkpoint]
every_steps = 2
min_free_bytes = 0
[stage.resources]
threads = 1
"""


Results = tuple[dict[str, str], list[dict[str, Any]]]


def results(client: Client, run_id: str, folder: Path) -> Results:
    """Digests of the last weights by their path, and the trajectories."""
    made = [artifact for artifact in client.artifacts.list(run_id) if artifact.stage_id == "rl"]
    checkpoint = max((a for a in made if a.kind is ArtifactKind.CHECKPOINT), key=lambda artifact: artifact.step or 0)
    [rollouts] = [artifact for artifact in made if artifact.kind is ArtifactKind.ROLLOUTS]
    client.artifacts.pull(rollouts.id, folder)
    return weights(client.artifacts.manifest(checkpoint.id)), list(read_rows(folder, "rollouts"))


def weights(manifest: Manifest) -> dict[str, str]:
    return {entry.path: entry.digest for entry in manifest.files if entry.path.endswith(".safetensors")}


class Watched:
    """The run, the pods of its RayCluster, and what its journal says, which outlives attempts."""

    def __init__(self, platform: PlatformProcess, run_id: str) -> None:
        self._platform, self._run_id = platform, run_id
        self._prefix = f"projects/default/runs/{run_id}/rl/rl/line-000000/"
        self.ended: set[str] = set()
        """Trajectories that were written down as ended whenever a pod was deleted."""

    def iterations(self) -> int:
        """That have ended."""
        return len(self._noted("08-verify"))

    def checksums(self) -> list[str]:
        """Of the weights after each iteration."""
        store = self._platform.objects()
        return [json.loads(store.get(key))["checksum"] for key in self._noted("05-register")]

    def _noted(self, name: str) -> list[str]:
        return sorted(key for key in self._platform.objects().list(f"{self._prefix}journal/") if name in key)

    def until_iteration(self, number: int) -> None:
        def has_come() -> bool:
            run = self._platform.run(self._run_id)
            assert not run.state.is_terminal, f"{run.state}: {run.reason}\n{self._platform.last_words()}"
            return self.iterations() >= number

        self._platform.until(has_come, seconds=SECONDS)

    def pods(self, part: str) -> dict[str, str]:
        """{uid: name} of those that run."""
        found = self._platform.cluster.kubectl.json(
            "get", "pods", "-n", self._platform.namespace, "-l", f"ray.io/node-type={part}",
            "--field-selector=status.phase=Running",
        )["items"]  # fmt: skip
        return {pod["metadata"]["uid"]: pod["metadata"]["name"] for pod in found}

    def delete_pod(self, part: str) -> int:
        """Returns, once it is gone, how many iterations had ended when it was to go."""
        [(uid, name)] = self.pods(part).items()
        before = self.iterations()
        self.ended |= self._ended()
        self._platform.cluster.kubectl("delete", "pod", name, "-n", self._platform.namespace, "--wait=false")
        self._platform.until(lambda: uid not in self.pods(part), seconds=SECONDS)
        return before

    def _ended(self) -> set[str]:
        keys = self._platform.objects().list(f"{self._prefix}rollouts/")
        names = (key.rpartition("/")[2].removesuffix(".json.zst") for key in keys if "/ended/" in key)
        return {"/".join(name.rsplit("-", 1)) for name in names}


def test_rl_on_two_pods_that_are_deleted_under_it_comes_to_the_bits_of_one_process(
    cluster: ClusterHandle, namespace: str, tmp_path: Path, postgres: EmbeddedPostgres, disturbed: Disturbed
) -> None:
    cluster.install("kuberay")
    local = disturbed.submit(RECIPE)
    assert disturbed.wait_end(local, seconds=SECONDS).state is RunState.SUCCEEDED, disturbed.last_words()
    expected = disturbed.ask(lambda client: results(client, local, tmp_path / "local"))
    with open_platform(tmp_path / "platform", cluster, namespace, postgres, memory=MEMORY) as platform:
        run_id = platform.submit(RECIPE + ON_RAY)
        watched = Watched(platform, run_id)
        watched.until_iteration(2)
        at = [watched.delete_pod("worker")]
        print(cluster.kubectl("get", "rayjobs,pods", "-n", namespace))
        watched.until_iteration(at[0] + 3)
        at.append(watched.delete_pod("head"))
        run = platform.wait_end(run_id, seconds=SECONDS)
        attempts = platform.attempts(run_id, "rl")
        print(at, [(attempt.state, attempt.cause, attempt.reason, attempt.resumed_from) for attempt in attempts])
        assert run.state is RunState.SUCCEEDED, f"{run.reason}\n{platform.last_words()}"
        with platform.client() as client:
            found = results(client, run_id, tmp_path / "cluster")
            lines = [line.text for each in attempts for line in client.logs.follow(each.id, rank=0, poll_seconds=0.1)]
        print("\n".join(lines))
        checksums = watched.checksums()
    names = [row["id"] for row in found[1]]
    assert max(at) < ITERATIONS, "both were deleted while it was training"
    assert attempts[-1].resumed_from is not None, (
        "the loss of the head cost no more than the iterations since the last checkpoint"
    )
    assert len(names) == len(set(names)) == ITERATIONS * GROUPS * MEMBERS
    assert watched.ended <= set(names), "what had ended before a loss is not lost"
    assert len(set(checksums)) > ITERATIONS // 2, "it has learned something: the same bits would say nothing"
    assert set(names) == {row["id"] for row in expected[1]}
    if cluster.is_local:  # another machine's CPUs may round otherwise
        assert found == expected
    assert any("2 inference replicas on 2 nodes" in line for line in lines)
    assert any("another takes its place" in line for line in lines)
