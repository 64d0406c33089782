"""The fence and the renderers before a real apiserver: policies in CEL, the operators' own CRDs, strict validation."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.apiserver import ApiServer, needs_apiserver
from cluster.binaries import KUBERAY, TRAINER, TRAINING_OPERATOR, module_folder
from rendering import h800, placement, spec
from typer.testing import CliRunner

from abruzzi.contracts.states import StageKind
from abruzzi_operators.executors.fence import NAME, Fence, policies, refused
from abruzzi_operators.kubernetes.access import Access
from abruzzi_operators.kubernetes.errors import Denied, Invalid
from abruzzi_operators.kubernetes.resources import (
    ADMISSION_POLICIES,
    ADMISSION_POLICY_BINDINGS,
    CONFIG_MAPS,
    JOBS,
    NAMESPACES,
    PODS,
    PYTORCH_JOBS,
    RAY_JOBS,
    SECRETS,
    TRAIN_JOBS,
    TRAINING_RUNTIMES,
    Object,
)
from abruzzi_operators.kubernetes.rest_api import RestApi
from abruzzi_operators.renderers import WorkloadKind, render
from abruzzi_operators.renderers.rayjob import rayjob
from abruzzi_operators.renderers.trainjob import training_runtime
from abruzzi_operators.supervisor.backup import app

pytestmark = needs_apiserver

NAMESPACE = "abruzzi-stages"
POLICY_SECONDS = 240.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("apiserver")) as made:
        restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
        namespace = NAMESPACES.new(NAMESPACE)
        namespace["metadata"]["labels"] = restricted
        made.apply(f"/api/v1/namespaces/{NAMESPACE}", namespace)
        yield made


@pytest.fixture
async def api(server: ApiServer) -> AsyncIterator[RestApi]:
    async with RestApi(Access(kubeconfig=server.kubeconfig)) as made:
        yield made


async def install_policies(api: RestApi) -> None:
    for thing in policies(NAMESPACE):
        kind = ADMISSION_POLICIES if thing["kind"] == ADMISSION_POLICIES.kind else ADMISSION_POLICY_BINDINGS
        await api.apply(kind, thing)


def job(number: int, *, run: str = "k7m2q9x4ab", stage: str = "corpus") -> Object:
    made = spec(StageKind.CORPUS).model_copy(
        update={"run_id": run, "stage_id": stage, "attempt_id": f"{run}-{stage}-{number}", "epoch": number}
    )
    return render(made, placement(), WorkloadKind.JOB)


async def until_refused(make: Callable[[], Awaitable[Any]]) -> Denied | Invalid:
    """Policies and their parameter reach the apiserver's admission within a second or two; a dry run asks."""
    async with asyncio.timeout(POLICY_SECONDS):
        while True:
            try:
                await make()
            except (Denied, Invalid) as error:
                return error
            await asyncio.sleep(0.05)


async def test_the_policies_compile_and_the_fence_refuses_what_was_removed_and_only_that(api: RestApi) -> None:
    await install_policies(api)
    fence = Fence(api, NAMESPACE, now=lambda: 1764115200.0)
    async with fence.reflector:
        await fence.reflector.synced()
        await fence.remove("k7m2q9x4ab-corpus-2")
        assert fence.is_removed("k7m2q9x4ab-corpus-2")
        error = await until_refused(lambda: api.create(JOBS, job(2), dry_run=True))
        assert refused(error)
        assert "attempt k7m2q9x4ab-corpus-2 was removed and never comes back" in error.message
        with pytest.raises(Denied):
            await api.create(JOBS, job(1), dry_run=True)
        await api.create(JOBS, job(3), dry_run=True)
        await api.create(JOBS, job(1, stage="tokenize"), dry_run=True)
        await api.create(JOBS, job(1, run="z7m2q9x4ab"), dry_run=True)
        foreign = job(1)
        foreign["metadata"]["labels"] = {"app": "somebody-elses"}
        await api.create(JOBS, foreign, dry_run=True)


async def test_the_fence_refuses_the_pods_of_what_was_removed(api: RestApi) -> None:
    """An operator may still be about to make them."""

    def pod(number: int) -> Object:
        template = job(number, stage="pods")["spec"]["template"]
        made = PODS.new(f"probe-{number}", NAMESPACE, spec=template["spec"])
        made["spec"].pop("serviceAccountName", None)
        made["metadata"]["labels"] = template["metadata"]["labels"]
        return made

    await install_policies(api)
    fence = Fence(api, NAMESPACE, now=lambda: 1764115200.0)
    async with fence.reflector:
        await fence.reflector.synced()
        await fence.remove("k7m2q9x4ab-pods-2")
    error = await until_refused(lambda: api.create(PODS, pod(2), dry_run=True))
    assert refused(error)
    await api.create(PODS, pod(3), dry_run=True)
    foreign = pod(1)
    foreign["metadata"]["labels"] = {"app": "somebody-elses"}
    await api.create(PODS, foreign, dry_run=True)


async def test_the_fence_is_only_raised_and_old_entries_may_go(api: RestApi) -> None:
    await install_policies(api)

    async def lower() -> None:
        # Raised again each time: until the apiserver knows the policy, what follows lowers it.
        await api.apply(CONFIG_MAPS, CONFIG_MAPS.new(NAME, NAMESPACE, data={"r.s": "5 100", "r.t": "2 100"}))
        await api.patch(CONFIG_MAPS, NAME, {"data": {"r.s": "4 200"}}, namespace=NAMESPACE)

    error = await until_refused(lower)
    assert "the fence is only raised" in error.message
    await api.patch(CONFIG_MAPS, NAME, {"data": {"r.s": "6 200", "r.t": None}}, namespace=NAMESPACE)
    assert (await api.get(CONFIG_MAPS, NAME, namespace=NAMESPACE))["data"]["r.s"] == "6 200"


@pytest.mark.parametrize("by", ["the same controller", "the next controller"])
async def test_an_older_attempt_that_outlived_a_newer_one_is_removed_under_the_fence_that_it_raised(
    by: str, api: RestApi
) -> None:
    await install_policies(api)
    stage = f"k7m2q9x4ab-{by.split()[1]}"
    first = Fence(api, NAMESPACE, now=lambda: 1764115200.0)
    async with first.reflector:
        await first.reflector.synced()
        await first.remove(f"{stage}-9", anew=True)
        if by == "the same controller":
            await first.remove(f"{stage}-2", anew=True)
    later = Fence(api, NAMESPACE, now=lambda: 1764115300.0)
    async with later.reflector:
        await later.reflector.synced()
        await later.remove(f"{stage}-3", anew=True)
    data = (await api.get(CONFIG_MAPS, NAME, namespace=NAMESPACE))["data"]
    assert data[stage.replace("-", ".", 1)].split(" ")[0] == "10"


def test_the_command_that_clears_a_namespace_says_what_goes_and_asks_first(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.apply("/api/v1/namespaces/cleared", NAMESPACES.new("cleared"))
    attempt = job(1)["metadata"]
    kept = SECRETS.new(attempt["name"], "cleared")
    kept["metadata"]["labels"] = attempt["labels"]
    server.apply(f"/api/v1/namespaces/cleared/secrets/{attempt['name']}", kept)
    server.apply(
        f"/api/v1/namespaces/cleared/configmaps/{NAME}", CONFIG_MAPS.new(NAME, "cleared", data={"r.s": "5 100"})
    )
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
    command = ["clear", "cleared"]
    asked = CliRunner().invoke(app, command, input="n\n")
    assert asked.exit_code == 1
    assert f"Remove from namespace cleared of {server.url}: 1 secrets, 1 configmaps?" in asked.output
    told = CliRunner().invoke(app, [*command, "--yes", "--json"])
    assert json.loads(told.output) == {"namespace": "cleared", "removed": {"secrets": 1, "configmaps": 1}}
    assert "nothing was there" in CliRunner().invoke(app, command).output


async def test_a_workload_stands_for_one_attempt_epoch_and_spec_for_ever(api: RestApi) -> None:
    await install_policies(api)
    made = await api.create(JOBS, job(7, stage="other"))

    async def change(labels: dict[str, str | None]) -> None:
        await api.patch(JOBS, made["metadata"]["name"], {"metadata": {"labels": labels}}, namespace=NAMESPACE)

    others = itertools.count(8)  # until the apiserver knows the policy, each is taken
    error = await until_refused(lambda: change({"abruzzi.io/epoch": str(next(others))}))
    assert "one attempt, epoch and spec for ever" in error.message
    with pytest.raises(Denied):
        await change({"abruzzi.io/attempt": None})
    digest = {"metadata": {"annotations": {"abruzzi.io/spec-digest": "sha256:0"}}}
    with pytest.raises(Denied):
        await api.patch(JOBS, made["metadata"]["name"], digest, namespace=NAMESPACE)
    await change({"somebody/else": "may"})


async def test_the_pods_pass_restricted_pod_security_as_the_apiserver_enforces_it(api: RestApi) -> None:
    for kind, ranks in ((StageKind.CORPUS, 1), (StageKind.CONTAINER, 1)):
        image = {"container": {"command": ["true"], "image": "docker.io/library/busybox:1"}}
        made = render(spec(kind, ranks=ranks, config=image), h800(namespace=NAMESPACE), WorkloadKind.JOB)
        pod = PODS.new("probe", NAMESPACE, spec=made["spec"]["template"]["spec"])
        pod["spec"].pop("serviceAccountName")
        await api.create(PODS, pod, dry_run=True)
    pod["spec"]["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
    with pytest.raises(Denied, match="violates PodSecurity"):
        await api.create(PODS, pod, dry_run=True)


@pytest.mark.skipif(shutil.which("go") is None, reason="needs Go, for the operators' own CRDs")
async def test_a_real_apiserver_takes_every_rendered_object_under_strict_validation(
    server: ApiServer, api: RestApi
) -> None:
    crds = {
        TRAINING_OPERATOR: ["manifests/base/crds/kubeflow.org_pytorchjobs.yaml"],
        TRAINER: [
            "manifests/base/crds/trainer.kubeflow.org_trainjobs.yaml",
            "manifests/base/crds/trainer.kubeflow.org_trainingruntimes.yaml",
        ],
        KUBERAY: ["config/crd/bases/ray.io_rayjobs.yaml"],
    }
    for module, paths in crds.items():
        for path in paths:
            server.apply_crds(module_folder(module) / Path(path))
    where = h800(namespace=NAMESPACE)
    await api.create(JOBS, render(spec(StageKind.CORPUS), where, WorkloadKind.JOB), dry_run=True)
    pytorch = render(spec(ranks=64), where, WorkloadKind.PYTORCH_JOB)
    await api.create(PYTORCH_JOBS, pytorch, dry_run=True)
    await api.create(TRAIN_JOBS, render(spec(ranks=64), where, WorkloadKind.TRAIN_JOB), dry_run=True)
    await api.create(TRAINING_RUNTIMES, training_runtime(NAMESPACE), dry_run=True)
    await api.create(RAY_JOBS, rayjob(spec(StageKind.TOKENIZE, ranks=2), where), dry_run=True)
    snake = {**pytorch, "spec": {"pytorch_replica_specs": pytorch["spec"]["pytorchReplicaSpecs"]}}
    with pytest.raises(Invalid):
        await api.create(PYTORCH_JOBS, snake, dry_run=True)
