"""The charts on the real node, by helm: installed with hooks and real pods, tested, upgraded from the chart before with a run going on, rolled
back, uninstalled with everything left that matters."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster.handle import ClusterHandle
from cluster.helm_platform import CHART, SECRET, HelmPlatform
from cluster.small_stages import CORPUS
from executor_bench import WAITS_FOR_FILE

from abruzzi.backup import service
from abruzzi.contracts.resources import RunOut
from abruzzi.contracts.states import AttemptState, RunState

pytestmark = [pytest.mark.slow, pytest.mark.serial, pytest.mark.timeout(1500)]

PREVIOUS = Path(__file__).parent / "charts" / "abruzzi-0.2.0.tgz"
"""The chart before this one, as `helm package` made it; replaced when a chart is released."""
CURRENT = f"abruzzi-{yaml.safe_load((CHART / 'Chart.yaml').read_text())['version']}"
RECIPE = f"""
version = 1
name = "through-an-upgrade"
{CORPUS}
[[stage]]
id = "hold"
kind = "container"
needs = ["corpus"]
[stage.container]
command = ["python", "-u", "-c", '''{WAITS_FOR_FILE}''']

[[stage]]
id = "tokenize"
kind = "tokenize"
needs = ["corpus", "hold"]
[stage.tokenizer]
vocab_size = 300
[stage.resources]
threads = 1
"""
PLACEMENT = {"placement": {"cpu_cores": 0.1, "memory": "1 GB"}}


@pytest.fixture(scope="module")
def platform(cluster: ClusterHandle) -> Iterator[HelmPlatform]:
    made = HelmPlatform(cluster, "helm-test")
    try:
        made.build(print)
        made.install_trial()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chart")
    with tarfile.open(PREVIOUS) as archive:
        archive.extractall(folder, filter="data")
    return folder / "abruzzi"


def versions(platform: HelmPlatform) -> dict[str, set[str]]:
    """Chart by component, of all pods."""
    found: dict[str, set[str]] = {}
    for pod in platform.pods().values():
        labels = pod["metadata"]["labels"]
        found.setdefault(labels["app.kubernetes.io/component"], set()).add(labels["helm.sh/chart"])
    return found


def stage_pod(cluster: ClusterHandle, platform: HelmPlatform, run_id: str, stage: str) -> dict[str, Any] | None:
    found = cluster.kubectl.json("get", "pods", "-n", platform.stages, "-l", f"abruzzi.io/run={run_id}")["items"]
    running = [pod for pod in found if pod["metadata"]["labels"]["abruzzi.io/stage"] == stage]
    return running[0] if running and running[0]["status"]["phase"] == "Running" else None


def see(platform: HelmPlatform, run_id: str) -> RunOut:
    with platform.client() as client:
        return client.runs.get(run_id)


def wait_versions(platform: HelmPlatform, chart: str) -> None:
    """helm does not wait until the last old pod is being ended."""
    wanted = {part: {chart} for part in ("api", "controller", "worker", "beat")}
    platform.wait(f"all pods are of {chart}", lambda: versions(platform) == wanted, seconds=240)


def test_an_upgrade_under_a_run_a_rollback_and_an_uninstall(
    platform: HelmPlatform, cluster: ClusterHandle, previous: Path
) -> None:
    notes = platform.install(previous, stages=PLACEMENT)
    assert "is installed as abruzzi, revision 1" in notes
    pods = platform.pods().values()
    assert len([pod for pod in pods if pod["metadata"]["labels"]["app.kubernetes.io/component"] == "controller"]) == 2
    assert {pod["spec"]["securityContext"]["runAsNonRoot"] for pod in pods} == {True}
    wait_versions(platform, PREVIOUS.stem)
    assert "Succeeded" in platform.test()
    with platform.client() as client:
        run_id = client.runs.submit(RECIPE, None).id
    platform.wait("`hold` runs", lambda: stage_pod(cluster, platform, run_id, "hold"), seconds=240)
    before = set(platform.pods())
    backups = platform.make_claim("backups")
    assert "revision 2" in platform.upgrade(stages=PLACEMENT, backup={"enabled": True, "claim": "backups"})
    wait_versions(platform, CURRENT)
    assert not before & set(platform.pods()), "every pod is a new one"
    assert see(platform, run_id).state is RunState.RUNNING

    held = stage_pod(cluster, platform, run_id, "hold")
    assert held is not None, "the stage has not noticed"
    attempt = (
        cluster.local.layout.kubelet / "pods" / held["metadata"]["uid"] / "volumes/kubernetes.io~empty-dir/attempt"
    )
    (attempt / "go").touch()
    platform.wait("the run ends", lambda: see(platform, run_id).state.is_terminal, seconds=300)
    run = see(platform, run_id)
    assert run.state is RunState.SUCCEEDED, f"{run.reason}\n{platform.last_words()}"
    attempts = [[attempt.state for attempt in stage.attempts] for stage in run.detail]
    assert attempts == [[AttemptState.SUCCEEDED]] * 3
    starts = platform.starts(run_id)
    assert len(starts) == 3, starts
    assert set(starts.values()) == {1}, "nothing ran twice"

    cluster.kubectl("create", "job", "now", "--from=cronjob/abruzzi-abruzzi-backup", "-n", platform.namespace)
    print(cluster.wait_job("now", platform.namespace, seconds=240))
    [backup] = backups.iterdir()
    assert list(service.verify(backup)) == []
    made = service.read(backup)
    assert (made.tables["runs"].rows, made.tables["attempts"].rows, made.damaged) == (1, 3, ())

    platform.rollback(1)
    wait_versions(platform, PREVIOUS.stem)
    assert see(platform, run_id).state is RunState.SUCCEEDED
    assert "Succeeded" in platform.test()

    platform.uninstall()
    platform.wait("no pod is left", lambda: not platform.pods(), seconds=240)
    assert cluster.get("namespace", platform.stages, "")["status"]["phase"] == "Active"
    assert cluster.get("secret", SECRET, platform.namespace)["data"].keys() >= {"OWNER_DATABASE_URL", "SIGNING_KEY"}
    claims = cluster.kubectl.json("get", "persistentvolumeclaims", "-n", platform.namespace)["items"]
    assert {claim["metadata"]["name"] for claim in claims} >= {"backups", "data-trial-postgres-0", "data-trial-s3-0"}

    platform.install(stages=PLACEMENT)
    assert see(platform, run_id).state is RunState.SUCCEEDED, "the data were there all the time"
    with platform.client() as client:
        [corpus] = client.artifacts.list(run_id, stage_id="corpus")
        assert client.artifacts.manifest(corpus.id).files


TRAINING = """
version = 1
name = "whole-images"

[[stage]]
id = "corpus"
kind = "corpus"
[stage.data]
sources = ["pycountry"]
max_bytes = "200 KB"

[[stage]]
id = "tokenize"
kind = "tokenize"
needs = ["corpus"]
[stage.tokenizer]
vocab_size = 300

[[stage]]
id = "pretrain"
kind = "pretrain"
needs = ["tokenize"]
[stage.model]
preset = "nano"
[stage.schedule]
tokens = 20480
warmup_steps = 5
[stage.batch]
sequences = 16
sequence_length = 64
micro_sequences = 4
[stage.checkpoint]
min_free_bytes = 0
"""


@pytest.mark.prove
@pytest.mark.timeout(3600)
def test_the_true_image_of_the_stages_trains_without_a_mount(cluster: ClusterHandle) -> None:
    """A quarter of an hour and some 15 GB of disk: its image holds torch."""
    cluster.install("training-operator")
    platform = HelmPlatform(cluster, "helm-whole")
    try:
        platform.build(print, whole=True)
        platform.install_trial()
        platform.install(stages={"placement": {"cpu_cores": 0.5, "memory": "2 GB"}})
        with platform.client() as client:
            run_id = client.runs.submit(TRAINING, None).id
        platform.wait("the run ends", lambda: see(platform, run_id).state.is_terminal, seconds=900)
        run = see(platform, run_id)
        assert run.state is RunState.SUCCEEDED, f"{run.reason}\n{platform.last_words()}"
    finally:
        platform.remove()
