"""Pure renderers: one neutral stage spec and a placement in, one Kubernetes object out."""

from abruzzi_operators.renderers.placement import Placement, PodAdditions, RankResources
from abruzzi_operators.renderers.render import WorkloadKind, choose_kind, render

__all__ = ["Placement", "PodAdditions", "RankResources", "WorkloadKind", "choose_kind", "render"]
