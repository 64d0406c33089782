"""Metadata of a workload: who it stands for, and which spec it was made from."""

from __future__ import annotations

import json
from typing import Any

from abruzzi.contracts.stage import StageSpec
from abruzzi_operators.renderers.names import (
    ANNOTATION_DIGEST,
    ANNOTATION_FOREIGN,
    ANNOTATION_NODES,
    ANNOTATION_RANKS,
    ANNOTATION_ROOM,
    LABEL_QUEUE,
    attempt_labels,
    object_name,
)
from abruzzi_operators.renderers.placement import Placement


def workload_metadata(spec: StageSpec, placement: Placement) -> dict[str, Any]:
    labels = {**placement.labels, **attempt_labels(spec)}
    if placement.queue:
        labels[LABEL_QUEUE] = placement.queue
    annotations = {
        ANNOTATION_DIGEST: spec.digest(),
        ANNOTATION_NODES: str(placement.nodes(spec.world_size)),
        ANNOTATION_RANKS: str(placement.ranks_on_a_node(spec.world_size)),
    }
    if spec.config.get("elastic"):
        annotations[ANNOTATION_ROOM] = json.dumps(placement.asks(), sort_keys=True)
    if placement.is_foreign(spec):
        annotations[ANNOTATION_FOREIGN] = "true"
    return {"name": object_name(spec), "namespace": placement.namespace, "labels": labels, "annotations": annotations}
