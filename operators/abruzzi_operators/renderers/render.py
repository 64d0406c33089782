"""Which kind of workload an attempt becomes, and the object itself."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import StageKind
from abruzzi_operators.renderers.job import job
from abruzzi_operators.renderers.placement import Placement
from abruzzi_operators.renderers.pytorchjob import pytorchjob
from abruzzi_operators.renderers.trainjob import Overrides, trainjob


class WorkloadKind(StrEnum):
    JOB = "Job"
    PYTORCH_JOB = "PyTorchJob"
    TRAIN_JOB = "TrainJob"


def choose_kind(spec: StageSpec, placement: Placement, served: Collection[WorkloadKind]) -> WorkloadKind:
    """Raises AbruzziError `kind_not_served` with what an administrator must install."""
    if spec.kind is not StageKind.PRETRAIN and placement.nodes(spec.world_size) == 1:
        return WorkloadKind.JOB
    for kind in (WorkloadKind.PYTORCH_JOB, WorkloadKind.TRAIN_JOB):
        if kind in served:
            return kind
    if placement.nodes(spec.world_size) == 1:
        return WorkloadKind.JOB  # one node's ranks need no rendezvous between pods
    raise AbruzziError(
        "kind_not_served",
        f"Stage {spec.stage_id!r} needs {placement.nodes(spec.world_size)} nodes, but the cluster serves neither PyTorchJob (kubeflow.org/v1) "
        "nor TrainJob (trainer.kubeflow.org/v1alpha1).",
        hint="Install the Kubeflow training-operator or Trainer v2, or ask for ranks that fit one node of the pool.",
        status=422,
    )


def render(
    spec: StageSpec, placement: Placement, kind: WorkloadKind, *, overrides: Overrides = "podTemplateOverrides"
) -> dict[str, Any]:
    match kind:
        case WorkloadKind.JOB:
            return job(spec, placement)
        case WorkloadKind.PYTORCH_JOB:
            return pytorchjob(spec, placement)
        case WorkloadKind.TRAIN_JOB:
            return trainjob(spec, placement, overrides=overrides)
