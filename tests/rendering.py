"""Specs and placements for tests of the renderers, and the operators' own schemas to check objects with."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from abruzzi.contracts.artifact import ArtifactRef
from abruzzi.contracts.stage import S3Store, StageSpec
from abruzzi.contracts.states import ArtifactKind, StageKind
from abruzzi_operators.renderers import Placement, PodAdditions, RankResources

SCHEMAS = Path(__file__).parent / "cluster" / "crds"
RUN = "k7m2q9x4ab"
DATASET = ArtifactRef(
    kind=ArtifactKind.DATASET,
    manifest_key=f"projects/default/runs/{RUN}/tokenize/e2/dataset/manifest.json",
    digest="sha256:" + "0" * 64,
)


def spec(kind: StageKind = StageKind.PRETRAIN, *, ranks: int = 1, config: dict[str, Any] | None = None) -> StageSpec:
    stage = kind.value
    return StageSpec(
        project_id="default", run_id=RUN, stage_id=stage, attempt_id=f"{RUN}-{stage}-3", epoch=5, kind=kind, config=config or {},
        inputs={"dataset": DATASET} if kind is StageKind.PRETRAIN else {}, world_size=ranks,
        store=S3Store(endpoint="minio:9000", bucket="abruzzi", secure=False), output_prefix=f"projects/default/runs/{RUN}/{stage}/",
    )  # fmt: skip


def placement(**changes: Any) -> Placement:
    plain: dict[str, Any] = {
        "namespace": "abruzzi-stages",
        "image": "abruzzi-jobs:0.1.0",
        "api_url": "http://abruzzi-api:8600",
        "ranks_per_node": 1,
    }
    return Placement(**plain | changes)


def h800(**changes: Any) -> Placement:
    """A node of eight GPUs, as a pool of them would place it."""
    plain: dict[str, Any] = dict(
        queue="h800",
        ranks_per_node=8,
        resources=RankResources(cpu_cores=12, memory_bytes=200 << 30, gpus=1),
        node_selector={"abruzzi.io/flavor": "h800"},
        tolerations=({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
        required_topology="topology/block",
        excluded_nodes=("gpu-017", "gpu-003"),
        service_account="abruzzi-stage",
        additions=PodAdditions(
            volumes=({"name": "shm", "emptyDir": {"medium": "Memory"}},),
            volume_mounts=({"name": "shm", "mountPath": "/dev/shm"},),
            env={"NCCL_IB_HCA": "mlx5"},
            image_pull_secrets=("registry",),
            extended_resources={"rdma/hca": 8},
        ),
    )
    return placement(**plain | changes)


@cache
def _validator(kind: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads((SCHEMAS / f"{kind}.json").read_text()))


def mistakes(made: dict[str, Any]) -> list[str]:
    """What the operator's schema says against the object; unknown fields too."""
    return [f"{error.json_path}: {error.message[:200]}" for error in _validator(made["kind"]).iter_errors(made)]


def pods_of(made: dict[str, Any]) -> list[dict[str, Any]]:
    """Specs of all pods that the object asks for."""
    match made["kind"]:
        case "Job":
            return [made["spec"]["template"]["spec"]]
        case "PyTorchJob":
            return [replica["template"]["spec"] for replica in made["spec"]["pytorchReplicaSpecs"].values()]
        case "TrainingRuntime":
            return [
                job["template"]["spec"]["template"]["spec"]
                for job in made["spec"]["template"]["spec"]["replicatedJobs"]
            ]
        case "RayJob":
            cluster = made["spec"]["rayClusterSpec"]
            groups = [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]
            return [group["template"]["spec"] for group in groups]
    return []
