"""Which kind of workload an attempt becomes, and the object itself."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Any

from abruzzi.contracts.stage import StageSpec
from abruzzi.plan.placement import workload_kind
from abruzzi_operators.renderers.job import job
from abruzzi_operators.renderers.placement import Placement
from abruzzi_operators.renderers.pytorchjob import pytorchjob
from abruzzi_operators.renderers.rayjob import rayjob
from abruzzi_operators.renderers.trainjob import Overrides, trainjob


class WorkloadKind(StrEnum):
    JOB = "Job"
    PYTORCH_JOB = "PyTorchJob"
    TRAIN_JOB = "TrainJob"
    RAY_JOB = "RayJob"


def framework_of(spec: StageSpec) -> str:
    """What the recipe asks for beside pods: `ray`, `indexed-job`, or nothing."""
    return (spec.config.get("resources") or {}).get("framework") or ""


def choose_kind(spec: StageSpec, placement: Placement, served: Collection[WorkloadKind]) -> WorkloadKind:
    """`served`: what the cluster has, of which discovery has said that the stage can run there."""
    kind = workload_kind(spec.kind, placement.nodes(spec.world_size), served, framework=framework_of(spec))
    if kind is not None:
        return WorkloadKind(kind)
    raise LookupError(f"{spec.kind} over {placement.nodes(spec.world_size)} nodes has no kind among {sorted(served)}")


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
        case WorkloadKind.RAY_JOB:
            return rayjob(spec, placement)
