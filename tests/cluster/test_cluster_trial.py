"""The platform with the trial servers, MinIO by its own Containerfile, on the real node: under network policies that hold, and brought back by the
documented commands after Postgres and the object store have lost everything."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import database_rows
import psycopg
import pytest
from cluster import small_stages
from cluster.handle import ClusterHandle
from cluster.helm_platform import RELEASE, SECRET, TRIAL, HelmPlatform
from cluster.layout import APISERVER_SERVICE, HOST_ADDRESS, ROOT
from cluster.policies import enforced

from abruzzi.backup import service
from abruzzi.contracts.resources import RunOut
from abruzzi.contracts.stage import S3Store as S3Config
from abruzzi.contracts.states import RunState
from abruzzi.kit.db import connect_arguments
from abruzzi.store import open_store

pytestmark = [pytest.mark.slow, pytest.mark.prove, pytest.mark.timeout(3600)]

SECONDS = 600.0
PLACEMENT = {"placement": {"cpu_cores": 0.1, "memory": "1 GB"}}
CORPUS = f"""
version = 1
name = "at-the-trial"
{small_stages.CORPUS}"""
LOOK = """
[[stage]]
id = "look"
kind = "container"
needs = ["corpus"]
[stage.container]
command = ["python", "-c", '''{code}''', {targets}]
"""
PROBE = """
import socket, sys
for target in sys.argv[1:]:
    host, port = target.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
        print(target, "open", flush=True)
    except OSError:
        print(target, "closed", flush=True)
"""
"""Prints of each `address:port` whether it may be reached."""
UNTIL_CLOSED = """
import socket, sys
def is_open(target):
    host, port = target.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
        return True
    except OSError:
        return False
for turn in range(1000):
    found = [target for target in sys.argv[1:] if is_open(target)]
    print("turn", turn, "open:", found, flush=True)
    if not found:
        sys.exit(0)
sys.exit(64)
"""
"""A pod may be quicker than whoever enforces policies hears of it; after that nothing that it was not given may be open."""
RESTRICTED = {
    "runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip


@pytest.fixture(scope="module")
def platform(cluster: ClusterHandle) -> Iterator[HelmPlatform]:
    made = HelmPlatform(cluster, "trial-test")
    try:
        made.build(print, s3=True)
        made.install_trial()
        made.make_claim("backups")
        policy = {"dnsTo": [{"ipBlock": {"cidr": f"{HOST_ADDRESS}/32"}}]}  # the node's own, outside of any pod
        policy |= made.values()["networkPolicy"]
        made.install(stages=PLACEMENT, backup={"enabled": True, "claim": "backups"}, networkPolicy=policy)
        yield made
    finally:
        made.remove()


def finish(platform: HelmPlatform, recipe: str) -> RunOut:
    with platform.client() as client:
        run_id = client.runs.submit(recipe, None).id

        def has_ended() -> bool:
            return client.runs.get(run_id).state.is_terminal

        platform.wait("the run ends", has_ended, seconds=SECONDS)
        return client.runs.get(run_id)


def log_of(platform: HelmPlatform, run: RunOut) -> list[str]:
    """The last lines of its last stage."""
    with platform.client() as client:
        attempt = run.detail[-1].attempts[-1]
        return [line.text for line in client.logs.follow(attempt.id, rank=0, poll_seconds=0.1)][-20:]


def ports(cluster: ClusterHandle, platform: HelmPlatform) -> dict[str, str]:
    """{component/port: address} of all that listens in the platform's namespace, of one pod each."""
    pods = cluster.kubectl.json("get", "pods", "-n", platform.namespace)["items"]
    return {
        f"{pod['metadata']['labels'].get('app.kubernetes.io/component')}/{port['name']}": f"{pod['status']['podIP']}:{port['containerPort']}"
        for pod in pods
        if pod["status"]["phase"] == "Running"
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
    }


class Stranger:
    """A pod that the platform knows nothing of."""

    def __init__(self, cluster: ClusterHandle, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        container = {
            "name": "main", "image": cluster.python_image(), "imagePullPolicy": "Never", "securityContext": security,
            "command": ["python", "-c", "import signal; signal.pause()"],
        }  # fmt: skip
        spec = {"terminationGracePeriodSeconds": 0, "securityContext": RESTRICTED, "containers": [container]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stranger"}, "spec": spec}
        cluster.kubectl.create(pod, namespace=namespace)
        cluster.kubectl.wait("pod/stranger", "condition=Ready", namespace=namespace, seconds=SECONDS)

    def reaches(self, targets: Mapping[str, str]) -> set[str]:
        """Names of those that answer."""
        command = ["exec", "-n", self._namespace, "stranger", "--", "python", "-c", PROBE, *targets.values()]
        said = dict(line.split() for line in self._cluster.kubectl(*command).splitlines())
        return {name for name, address in targets.items() if said[address] == "open"}


def test_under_policies_that_hold_strangers_reach_nothing_and_the_platform_works(
    cluster: ClusterHandle, namespace: str, platform: HelmPlatform
) -> None:
    targets = ports(cluster, platform)
    served = {"postgres/postgres", "redis/redis", "s3/s3", "api/http", "controller/metrics"}
    assert targets.keys() >= served, targets
    outside, neighbour = Stranger(cluster, namespace), Stranger(cluster, platform.namespace)
    assert outside.reaches(targets) >= served, "without somebody who enforces them, policies are words"
    with enforced(cluster.local):
        platform.wait("strangers reach nothing", lambda: not outside.reaches(targets), seconds=SECONDS)
        # What the chart lets in by default: the API and the metrics, from its own namespace.
        open_to_neighbours = {"api/http", "controller/metrics"}
        platform.wait(
            "a neighbour reaches what serves", lambda: neighbour.reaches(targets) == open_to_neighbours, seconds=SECONDS
        )
        forbidden = [targets[name] for name in ("postgres/postgres", "redis/redis", "controller/metrics")]
        words = ", ".join(json.dumps(target) for target in (*forbidden, f"{APISERVER_SERVICE}:443"))
        run = finish(platform, CORPUS + LOOK.format(code=UNTIL_CLOSED, targets=words))
        print(log_of(platform, run))
        assert run.state is RunState.SUCCEEDED, f"{run.reason}\n{platform.last_words()}"
        assert "Succeeded" in platform.test()
        assert not outside.reaches(targets)
    platform.wait("policies are words again", lambda: outside.reaches(targets) >= served, seconds=SECONDS)


def running(platform: HelmPlatform) -> list[str]:
    return [name for name, pod in platform.pods().items() if pod["status"]["phase"] in ("Pending", "Running")]


def secret(cluster: ClusterHandle, platform: HelmPlatform) -> dict[str, str]:
    data = cluster.get("secret", SECRET, platform.namespace)["data"]
    return {name: b64decode(value).decode() for name, value in data.items()}


def state(cluster: ClusterHandle, platform: HelmPlatform) -> tuple[dict[str, Any], dict[str, bytes]]:
    """All rows and all objects, by way of the trial's Services: this machine is a node."""
    addresses = {
        part: cluster.get("service", f"{TRIAL}-{part}", platform.namespace)["spec"]["clusterIP"] for part in ("postgres", "s3")
    }  # fmt: skip
    url = re.sub(r"@[^/]+", f"@{addresses['postgres']}", secret(cluster, platform)["OWNER_DATABASE_URL"])
    with psycopg.connect(**connect_arguments(url)) as connection:
        rows = database_rows.rows(connection)
    store = open_store(S3Config(endpoint=f"{addresses['s3']}:9000", bucket="abruzzi", secure=False))
    return rows, {key: store.get(key) for key in store.list("projects/")}


def documented(platform: HelmPlatform, backup: str) -> tuple[str, str]:
    """The commands of docs/how-to/back-up.md for this release: those that restore, and the one that starts the platform again."""
    text = (ROOT / "docs/how-to/back-up.md").read_text().split("Restore, into the release's own")[1]
    block = text.split("```bash\n")[1].split("```")[0]
    block = re.sub(r"-n abruzzi\b(?!-)", f"-n {platform.namespace}", block)
    block = block.replace("abruzzi-stages", platform.stages).replace("abruzzi-20251126T030000Z", backup)
    restore, _, start = block.strip().rpartition("\n")
    assert start.startswith("helm upgrade"), block
    return restore, start


def shell(cluster: ClusterHandle, script: str) -> str:
    """As an administrator types it, who says yes where he is asked."""
    tools = [cluster.tools.path(name).parent for name in ("helm", "kubectl")]
    path = os.pathsep.join(map(str, (Path(sys.executable).parent, *tools, os.environ["PATH"])))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={**os.environ, "PATH": path, "KUBECONFIG": str(cluster.kubeconfig)},
        **{"cwd": ROOT, "input": "y\n", "capture_output": True, "text": True, "timeout": 1200, "check": False},
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_what_postgres_and_the_store_have_lost_comes_back_equal_by_the_documented_commands(
    cluster: ClusterHandle, platform: HelmPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = secret(cluster, platform)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, keys[name])
    run = finish(platform, CORPUS)
    assert run.state is RunState.SUCCEEDED, f"{run.reason}\n{platform.last_words()}"
    selector = f"app.kubernetes.io/instance={RELEASE}"
    cluster.kubectl("scale", "deployment", "-n", platform.namespace, "-l", selector, "--replicas=0")
    platform.wait("nothing of it runs", lambda: not running(platform), seconds=SECONDS)
    cluster.kubectl("create", "job", "now", "--from=cronjob/abruzzi-abruzzi-backup", "-n", platform.namespace)
    print(cluster.wait_job("now", platform.namespace, seconds=SECONDS))
    cluster.kubectl("delete", "job", "now", "-n", platform.namespace)
    [backup] = platform.folder_of("backups").iterdir()
    assert list(service.verify(backup)) == []
    before = state(cluster, platform)
    assert before[0]["runs"]
    assert before[1]

    for part in ("postgres", "s3"):
        cluster.kubectl("scale", f"statefulset/{TRIAL}-{part}", "-n", platform.namespace, "--replicas=0")
        cluster.kubectl("wait", f"pod/{TRIAL}-{part}-0", "-n", platform.namespace, "--for=delete", "--timeout=600s")
        for lost in platform.folder_of(f"data-{TRIAL}-{part}-0").iterdir():
            shutil.rmtree(lost)
        cluster.kubectl("scale", f"statefulset/{TRIAL}-{part}", "-n", platform.namespace, "--replicas=1")
    for part in ("postgres", "s3"):
        cluster.kubectl("rollout", "status", f"statefulset/{TRIAL}-{part}", "-n", platform.namespace, seconds=SECONDS)

    restore, start = documented(platform, backup.name)
    print(shell(cluster, restore))
    assert state(cluster, platform) == before
    print(shell(cluster, start))
    with platform.client() as client:  # which tries until it serves
        assert client.runs.get(run.id).state is RunState.SUCCEEDED
        [corpus] = client.artifacts.list(run.id)
        assert client.artifacts.manifest(corpus.id).files
    assert "Succeeded" in platform.test()
    again = finish(platform, CORPUS)
    assert again.state is RunState.SUCCEEDED, f"{again.reason}\n{platform.last_words()}"
