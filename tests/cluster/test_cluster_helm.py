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
from cluster.sandbox_ground import offer_gvisor
from cluster.small_stages import CORPUS
from evals_lab import run_stage, stage_of
from executor_bench import WAITS_FOR_FILE
from instruct_lab import model
from recipe_parts import nano_training

from abruzzi.backup import service
from abruzzi.contracts.resources import RunOut
from abruzzi.contracts.states import AttemptState, RunState
from abruzzi_jobs.data.row_shards import read_rows
from abruzzi_jobs.evals.suites.humaneval import HumanEval
from abruzzi_operators.sandboxes.pod import LABEL_SANDBOX

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
SCORES = [1.0, 0.0, 0.0, 1.0]
BOXED = f"""
version = 1
name = "boxed"
[endpoint.t]
kind = "openai"
base_url = "{{url}}"
model = "model-1"

[[stage]]
id = "evals"
kind = "evaluate"
[stage.roles]
target = "t"
[stage.suites.humaneval]
max_items = {len(SCORES)}
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

    def holds() -> dict[str, Any] | None:
        assert not see(platform, run_id).state.is_terminal, platform.last_words()
        return stage_pod(cluster, platform, run_id, "hold")

    platform.wait("`hold` runs", holds, seconds=240)
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


@pytest.mark.prove
def test_a_stage_has_its_programs_graded_in_pods_of_the_charts_service_as_on_a_machine_and_none_is_left(
    platform: HelmPlatform, cluster: ClusterHandle, tmp_path: Path
) -> None:
    """A minute of installation and one of grading, beside the images. Its shortened twins: test_cluster_sandboxes.py and the suites' own tests."""
    offer_gvisor(cluster)
    pods = {"image": cluster.python_image(), "ready": 1, "most": 4, "per_attempt": 2, "memory": "1 GB", "disk": "1 GB"}
    sandboxes = {"enabled": True, "namespace": {"name": platform.sandboxes}, "pods": pods}
    platform.apply(stages=PLACEMENT, sandboxes=sandboxes)
    with model(_some_are_right, host=cluster.host_address) as target:
        with platform.client() as client:
            run_id = client.runs.submit(BOXED.format(url=target["endpoint"]["base_url"]), None).id
        platform.wait("the run ends", lambda: see(platform, run_id).state.is_terminal, seconds=400)
        run = see(platform, run_id)
        assert run.state is RunState.SUCCEEDED, f"{run.reason}\n{platform.last_words()}"
        here, _ = run_stage(tmp_path / "here", stage_of(target["endpoint"], humaneval={"max_items": len(SCORES)}))
    with platform.client() as client:
        [report] = client.artifacts.list(run_id, stage_id="evals")
        client.artifacts.pull(report.id, tmp_path / "there")
    assert answers(tmp_path / "there") == answers(here)
    assert [row["score"] for row in answers(here)] == SCORES

    events = cluster.kubectl.json("get", "events", "-n", platform.sandboxes)["items"]
    names = {event["involvedObject"]["name"] for event in events if event["reason"] == "Started"}
    assert len([name for name in names if name.startswith("sandbox-")]) > len(SCORES), "one a program, and one is ready"
    platform.wait("only the one that is ready is left", lambda: len(boxes(cluster, platform)) == 1, seconds=240)
    platform.uninstall()
    platform.wait("no pod is left", lambda: not boxes(cluster, platform), seconds=240)


def boxes(cluster: ClusterHandle, platform: HelmPlatform) -> set[str]:
    found = cluster.kubectl.json("get", "pods", "-n", platform.sandboxes, "-l", LABEL_SANDBOX)["items"]
    return {pod["metadata"]["name"] for pod in found}


def answers(folder: Path) -> list[dict[str, Any]]:
    return [
        {key: row[key] for key in row if key not in ("seconds", "call_ids")} for row in read_rows(folder, "answers")
    ]


def _some_are_right(asked: str) -> str:
    """The gold answer, its perturbed one, and the gold one of a program that says that its box is broken and ends what runs it."""
    suite = HumanEval(HumanEval.defaults)
    number, item = next((n, item) for n, item in enumerate(suite.items()) if item.prompt in asked)
    if number == 1:
        return suite.perturbed_answer(item)
    broken = "\nimport os, sys\nprint('sandbox: it failed', file=sys.__stderr__)\nos.kill(os.getppid(), 9)\n"
    return suite.gold_answer(item).replace("\n```", f"{broken if number == 2 else ''}\n```")


TRAINING = f"""
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
{nano_training(20)}"""


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
