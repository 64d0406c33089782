"""Pods that need no rendezvous, one try each: a `batch/v1` Job; of several pods an Indexed one."""

from __future__ import annotations

from typing import Any

from abruzzi.contracts.stage import StageSpec
from abruzzi_operators.renderers.metadata import workload_metadata
from abruzzi_operators.renderers.placement import Placement
from abruzzi_operators.renderers.pod import pod_template


def job(spec: StageSpec, placement: Placement) -> dict[str, Any]:
    """Of a stage whose ranks fit one node, or work by their index alone."""
    nodes = placement.nodes(spec.world_size)
    # Each index is tried once, and the first that fails is the end of the attempt: only the engine retries.
    indexed = {"completionMode": "Indexed", "backoffLimitPerIndex": 0, "maxFailedIndexes": 0} if nodes > 1 else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": workload_metadata(spec, placement),
        "spec": {
            "parallelism": nodes,
            "completions": nodes,
            "backoffLimit": 0,
            **indexed,
            # Only a pod that has ended counts, so that a deleted one is never replaced while it still runs.
            "podReplacementPolicy": "Failed",
            "suspend": bool(placement.queue),  # Kueue lets it go; made suspended it never starts a pod too early
            "template": pod_template(spec, placement, container="stage"),
        },
    }
