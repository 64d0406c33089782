"""Discovery of a real apiserver: what it serves by itself, and CRDs as they come."""

from __future__ import annotations

from pathlib import Path

from cluster.apiserver import ApiServer, needs_apiserver

from abruzzi.contracts.states import StageKind
from abruzzi_operators.kubernetes.access import Access
from abruzzi_operators.kubernetes.discovery import discover
from abruzzi_operators.kubernetes.resources import (
    CLUSTER_QUEUES,
    JOB_SETS,
    LOCAL_QUEUES,
    PYTORCH_JOBS,
    RAY_JOBS,
    RESOURCE_FLAVORS,
    TRAIN_JOBS,
    TRAINING_RUNTIMES,
    WORKLOADS,
)
from abruzzi_operators.kubernetes.rest_api import RestApi

pytestmark = needs_apiserver


async def test_a_real_cluster_is_discovered_as_its_operators_are_installed(tmp_path: Path) -> None:
    with ApiServer(tmp_path / "state") as server:
        async with RestApi(Access(kubeconfig=server.kubeconfig)) as api:
            bare = await discover(api)
            assert bare.version == "v1.34.4"
            assert bare.workload_kinds == {"Job"}
            assert bare.has_fence
            assert bare.cannot_run(StageKind.EVALUATE, is_queued=False) is None
            assert "Kueue" in (bare.cannot_run(StageKind.EVALUATE) or "")

            server.serve(
                PYTORCH_JOBS, RAY_JOBS, JOB_SETS, TRAINING_RUNTIMES, LOCAL_QUEUES, CLUSTER_QUEUES, RESOURCE_FLAVORS
            )
            server.serve(WORKLOADS.at("v1beta1"))
            server.serve(TRAIN_JOBS, spec_fields=["podTemplateOverrides"])
            full = await discover(api)
            assert full.refusals() == {}
            assert full.pod_overrides == "podTemplateOverrides"
            assert full.find(WORKLOADS).version == "v1beta1"
            assert full.find(LOCAL_QUEUES).version == "v1beta2"

        async with RestApi(Access(kubeconfig=server.kubeconfig_as("somebody", group="somebodies"))) as api:
            limited = await discover(api)
            assert limited.workload_kinds == {"Job", "PyTorchJob", "RayJob"}
            assert "may not be read" in limited.train_job_problem
