"""Outages of a real cluster and of a real controller: nothing is lost, nothing runs twice, and people are told. (In memory, in more variety:
tests/simulation/test_kubernetes_runs.py.)"""

from __future__ import annotations

import json
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.handle import ClusterHandle
from cluster.held_requests import HeldRequests
from cluster.layout import CACHE
from cluster.platform_process import PlatformProcess, open_platform
from cluster.pod_processes import pod_processes

from abruzzi.contracts.resources import AttemptOut
from abruzzi.contracts.stage import workload_name
from abruzzi.contracts.states import AttemptState, Cause, RunState
from abruzzi_operators.executors.fence import NAME
from abruzzi_operators.supervisor.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.slow, pytest.mark.serial, pytest.mark.timeout(900)]

ABSENCE_SECONDS = 60.0
"""Of the apiserver."""
DEADLINE_SECONDS = 240.0
"""Of everything that is waited for; on a quiet machine each takes seconds."""


@pytest.fixture(scope="module")
def platform(cluster: ClusterHandle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    folder = tmp_path_factory.mktemp("outages")
    with (
        cluster.new_namespace() as namespace,
        EmbeddedPostgres(folder / "postgres", durable=False) as postgres,
        open_platform(folder / "platform", cluster, namespace, postgres) as made,
    ):
        yield made


@pytest.fixture
def shared() -> Iterator[Path]:
    """Pods see this checkout at its own path, so a stage may wait for a file of the test's."""
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        Path(folder).chmod(0o755)  # pods are nobody here
        yield Path(folder)


def recipe(go: Path) -> str:
    """A stage that ends when the file is there."""
    program = (
        "import os, time\n"
        "print('began', flush=True)\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.1)\n"
        "print('ended', flush=True)"
    )
    return f"""
version = 1
name = "patient"
[[stage]]
id = "work"
kind = "container"
[stage.container]
command = {json.dumps(["python3", "-c", program])}
"""


def attempts(platform: PlatformProcess, run_id: str) -> list[AttemptOut]:
    return platform.attempts(run_id, "work")


def printed(platform: PlatformProcess, attempt: AttemptOut) -> list[str]:
    with platform.client() as client:
        return [line.text for line in client.logs.page(attempt.id).lines]


def until_runs(platform: PlatformProcess, run_id: str) -> None:
    """The command itself has said something."""

    def runs() -> bool:
        found = attempts(platform, run_id)
        return bool(found) and "began" in printed(platform, found[-1])

    platform.until(runs, seconds=DEADLINE_SECONDS)


def assert_ran_once(platform: PlatformProcess, run_id: str) -> None:
    assert platform.wait_end(run_id, seconds=DEADLINE_SECONDS).state is RunState.SUCCEEDED, platform.last_words()
    [only] = attempts(platform, run_id)
    platform.until(lambda: printed(platform, only) == ["began", "ended"], seconds=DEADLINE_SECONDS)


def until_nothing_is_left(cluster: ClusterHandle, platform: PlatformProcess) -> None:
    def left() -> list[str]:
        found = cluster.kubectl.json("get", "jobs,pods,secrets", "-n", platform.namespace)["items"]
        return [thing["metadata"]["name"] for thing in found]

    platform.until(lambda: not left(), seconds=DEADLINE_SECONDS)


def denials(cluster: ClusterHandle, namespace: str) -> int:
    """How often the apiserver has refused to create something because of the fence."""
    lines = cluster.kubectl("get", "--raw", "/metrics").splitlines()
    name, words = "apiserver_validating_admission_policy_check_total{", ('"deny"', f'policy="{NAME}-{namespace}"')
    found = [line for line in lines if line.startswith(name) and all(word in line for word in words)]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in found)


@pytest.mark.prove
def test_runs_do_not_notice_that_the_leading_controller_and_then_the_apiserver_stand_still(
    cluster: ClusterHandle, platform: PlatformProcess, shared: Path
) -> None:
    """The controller stands all the time, for longer than its lease and the apiserver's absence together; it is stopped in the middle of a creation,
    whose bytes reach the apiserver when another controller has long brought that attempt to its end. Once it goes on it works as before."""
    early, late = shared / "early", shared / "late"
    with HeldRequests(cluster.local.layout) as wire:
        platform.kill("controller")
        platform.start_controller("leading", kubeconfig=wire.kubeconfig(platform.folder))
        try:
            in_flight = platform.submit(recipe(early))
            until_runs(platform, in_flight)
            wire.hold(f"POST /apis/batch/v1/namespaces/{platform.namespace}/jobs")
            half_made = platform.submit(recipe(early))
            wire.wait_held(seconds=DEADLINE_SECONDS)
            platform.signal("leading", signal.SIGSTOP)

            platform.start_controller()
            lasting = platform.submit(recipe(late))
            until_runs(platform, lasting)
            early.touch()
            assert_ran_once(platform, in_flight)
            assert_ran_once(platform, half_made)
            outcome = platform.run(half_made)
            before = denials(cluster, platform.namespace)
            wire.release()
            platform.until(lambda: denials(cluster, platform.namespace) == before + 1, seconds=DEADLINE_SECONDS)

            outlast_an_absence_of_the_apiserver(cluster, platform, lasting, late)

            platform.signal("leading", signal.SIGCONT)
            platform.kill("controller")
            assert_ran_once(platform, platform.submit(recipe(late)))
            until_nothing_is_left(cluster, platform)
            assert platform.run(half_made) == outcome
        finally:
            platform.kill("leading")
    platform.start_controller()


def outlast_an_absence_of_the_apiserver(
    cluster: ClusterHandle, platform: PlatformProcess, run_id: str, go: Path
) -> None:
    apiserver = cluster.local.component("apiserver")
    apiserver.kill()
    back_at = time.monotonic() + ABSENCE_SECONDS
    try:
        go.touch()
        platform.until(lambda: "ended" in printed(platform, attempts(platform, run_id)[0]), seconds=DEADLINE_SECONDS)
        platform.until(lambda: "out of sight" in str(attempts(platform, run_id)[0].reason), seconds=DEADLINE_SECONDS)
        with platform.client() as client:
            assert "out of sight" in client.runs.why(run_id).sentence
        platform.until(lambda: time.monotonic() > back_at, seconds=DEADLINE_SECONDS)
        assert platform.run(run_id).state is RunState.RUNNING
    finally:
        apiserver.start()
        cluster.local.wait_ready()
    assert_ran_once(platform, run_id)


def test_a_run_that_an_older_etcd_has_forgotten_is_run_again_by_the_same_controller(
    cluster: ClusterHandle, platform: PlatformProcess, shared: Path
) -> None:
    go = shared / "go"
    cluster.local.save_etcd(shared.name)
    run_id = platform.submit(recipe(go))
    until_runs(platform, run_id)
    cluster.restore_etcd(shared.name)
    platform.until(lambda: len(attempts(platform, run_id)) > 1, seconds=DEADLINE_SECONDS)
    until_runs(platform, run_id)
    # Nobody but the kubelet knows of the first pod any more; it ends it when it has heard that it should not be there.
    platform.until(lambda: not pod_processes(workload_name(f"{run_id}-work-1")), seconds=DEADLINE_SECONDS)
    go.touch()
    assert platform.wait_end(run_id, seconds=DEADLINE_SECONDS).state is RunState.SUCCEEDED, platform.last_words()
    lost, *others, again = attempts(platform, run_id)
    assert (lost.state, lost.cause) == (AttemptState.FAILED, Cause.INFRASTRUCTURE), lost
    assert lost.reason, "people want to know why it was run again"
    assert again.state is AttemptState.SUCCEEDED
    platform.until(lambda: printed(platform, again) == ["began", "ended"], seconds=DEADLINE_SECONDS)
    # A node that is slow to come back may cost another attempt; only one does the work.
    assert [printed(platform, attempt)[1:] for attempt in (lost, *others)] == [[]] * (1 + len(others))
    until_nothing_is_left(cluster, platform)
