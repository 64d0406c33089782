"""What a cluster serves, and the sentence for what it can't run."""

from __future__ import annotations

from typing import Any

import pytest
from simulation.fake_api import ALL_KINDS, FakeApi

from abruzzi.contracts.states import StageKind
from abruzzi_operators.kubernetes.discovery import Cluster, discover
from abruzzi_operators.kubernetes.errors import Denied, Unreachable
from abruzzi_operators.kubernetes.resources import (
    ADMISSION_POLICIES,
    CRDS,
    LOCAL_QUEUES,
    PYTORCH_JOBS,
    RAY_JOBS,
    SANDBOXES,
    TRAIN_JOBS,
    WORKLOADS,
    Object,
    Resource,
)


async def cluster(
    *, without: tuple[Resource, ...] = (), train_job_fields: tuple[str, ...] = (), **versions: str
) -> Cluster:
    """Of a FakeApi; `versions` by group with _ for . and -."""
    served = [
        kind.at(versions.get(kind.group.replace(".", "_").replace("-", "_"), kind.version))
        for kind in ALL_KINDS
        if kind not in without
    ]
    api = FakeApi(served=served)
    await api.create(CRDS, train_job_crd(train_job_fields))
    return await discover(api)


def train_job_crd(fields: tuple[str, ...]) -> Object:
    properties: dict[str, Any] = {field: {"type": "array"} for field in fields}
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": properties}}}
    return CRDS.new(
        TRAIN_JOBS.full_name, spec={"versions": [{"name": "v1alpha1", "schema": {"openAPIV3Schema": schema}}]}
    )


async def test_a_full_cluster_refuses_nothing() -> None:
    found = await cluster(train_job_fields=("podTemplateOverrides",))
    assert found.refusals() == {}
    assert found.workload_kinds == {"Job", "PyTorchJob", "TrainJob", "RayJob"}
    assert found.has_queues
    assert found.has_fence
    assert found.version == "v1.34.4"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (("trainer", "podTemplateOverrides"), "podTemplateOverrides"),
        (("trainer", "runtimePatches"), "runtimePatches"),
        (("runtimePatches", "podTemplateOverrides"), "runtimePatches"),
    ],
)
async def test_trainer_versions_are_told_apart_by_the_schema(fields: tuple[str, ...], expected: str) -> None:
    assert (await cluster(train_job_fields=fields)).pod_overrides == expected


async def test_a_trainer_too_old_to_change_pods_is_not_used_and_says_so() -> None:
    found = await cluster(train_job_fields=("podSpecOverrides",), without=(PYTORCH_JOBS,))
    assert "TrainJob" not in found.workload_kinds
    sentence = found.cannot_run(StageKind.PRETRAIN, nodes=2)
    assert sentence == (
        "A pretrain stage over 2 nodes can't run here: the cluster does not serve PyTorchJob (kubeflow.org/v1); install the Kubeflow "
        "training-operator 1.9, or else: TrainJob has neither runtimePatches nor podTemplateOverrides; install Kubeflow Trainer 2.1 or newer."
    )
    assert found.cannot_run(StageKind.PRETRAIN) is None, "one node needs no operator"


async def test_a_train_job_stands_in_for_a_missing_pytorch_job() -> None:
    found = await cluster(train_job_fields=("runtimePatches",), without=(PYTORCH_JOBS,))
    assert found.cannot_run(StageKind.PRETRAIN, nodes=8) is None


async def test_a_crd_that_may_not_be_read_is_a_reason_with_the_servers_words() -> None:
    api = FakeApi(served=[kind for kind in ALL_KINDS if kind != PYTORCH_JOBS])

    async def refuse(resource: Resource, name: str, *, namespace: str | None = None) -> Object:
        raise Denied(f"get {resource.full_name} {name}: forbidden", http_status=403)

    api.get = refuse  # type: ignore[method-assign]
    sentence = (await discover(api)).cannot_run(StageKind.PRETRAIN, nodes=2)
    assert sentence is not None
    assert "may not be read" in sentence
    assert "forbidden" in sentence


async def test_ray_is_asked_for_only_by_stages_that_want_it() -> None:
    found = await cluster(without=(RAY_JOBS,), train_job_fields=("runtimePatches",))
    assert found.refusals() == {
        "tokenize on Ray": "A tokenize stage on Ray can't run here: the cluster does not serve RayJob (ray.io/v1); "
        "install the KubeRay operator 1.5 or newer."
    }


async def test_without_kueue_only_pools_without_quota_run() -> None:
    found = await cluster(without=(WORKLOADS, LOCAL_QUEUES), train_job_fields=("runtimePatches",))
    sentence = found.cannot_run(StageKind.CORPUS)
    assert sentence is not None
    assert (
        "Workload (kueue.x-k8s.io/v1beta2) and LocalQueue (kueue.x-k8s.io/v1beta2); install Kueue 0.16 or newer"
        in sentence
    )
    assert found.cannot_run(StageKind.CORPUS, is_queued=False) is None


async def test_without_admission_policies_nothing_runs_because_nothing_fences() -> None:
    found = await cluster(without=(ADMISSION_POLICIES,), train_job_fields=("runtimePatches",))
    assert not found.has_fence
    assert set(found.refusals()) >= {kind.value for kind in StageKind}


async def test_an_older_version_that_we_speak_is_used_and_one_that_we_do_not_is_named() -> None:
    found = await cluster(kueue_x_k8s_io="v1beta1", ray_io="v1alpha1", train_job_fields=("runtimePatches",))
    assert found.find(WORKLOADS).api_version == "kueue.x-k8s.io/v1beta1"
    assert found.has_queues
    assert "RayJob (ray.io/v1, only v1alpha1)" in (found.cannot_run(StageKind.TOKENIZE, framework="ray") or "")
    assert found.serves(SANDBOXES)


async def test_an_apiserver_without_aggregated_discovery_is_too_old() -> None:
    api = FakeApi()
    api.paths["/apis"] = {"kind": "APIGroupList", "groups": []}
    with pytest.raises(Unreachable, match=r"1\.30"):
        await discover(api)
