"""One pod, one try: a `batch/v1` Job."""

from __future__ import annotations

from typing import Any

from abruzzi.contracts.stage import StageSpec
from abruzzi_operators.renderers.metadata import workload_metadata
from abruzzi_operators.renderers.placement import Placement
from abruzzi_operators.renderers.pod import pod_template


def job(spec: StageSpec, placement: Placement) -> dict[str, Any]:
    """Of a stage whose ranks fit one node."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": workload_metadata(spec, placement),
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 0,
            # Only a pod that has ended counts, so that a deleted one is never replaced while it still runs.
            "podReplacementPolicy": "Failed",
            "suspend": bool(placement.queue),  # Kueue lets it go; made suspended it never starts a pod too early
            "template": pod_template(spec, placement, container="stage"),
        },
    }
