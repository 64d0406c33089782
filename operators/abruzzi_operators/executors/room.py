"""For how many ranks of an elastic stage there is room on the cluster's nodes. Pure.

An estimate: what other people's pods use is not counted, nor is a quota. Where it promises too much, the attempt that counted on it waits, and the
engine takes it back (engine/width.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from abruzzi_operators.kubernetes.quantities import amount
from abruzzi_operators.renderers.names import ANNOTATION_ROOM

Object = Mapping[str, Any]
ListNodes = Callable[[], Sequence[Object] | None]
Placed = Mapping[str, Mapping[str, Collection[int]]]
"""{node: {attempt: its ranks there}}"""
GPU = "nvidia.com/gpu"
_KEEPS_OUT = ("NoSchedule", "NoExecute")


def nobody_looks() -> None:
    """Where nobody looks after nodes."""


def room_of(attempt_id: str, workload: Object | None, nodes: ListNodes, placed: Callable[[], Placed]) -> int | None:
    """None: the stage is not elastic, or nobody knows."""
    asked = ((workload or {}).get("metadata", {}).get("annotations") or {}).get(ANNOTATION_ROOM)
    there = nodes() if asked is not None else None
    return None if asked is None or there is None else room(json.loads(asked), there, placed(), attempt_id)


def room(asks: Mapping[str, Any], nodes: Sequence[Object], placed: Placed, attempt_id: str) -> int:
    """`asks`: Placement.asks. `nodes` are those that take new pods. Its own ranks' places count, others' do not."""
    found = 0
    for node in nodes:
        if not _may_take(asks, node):
            continue
        others = sum(len(r) for a, r in placed.get(node["metadata"]["name"], {}).items() if a != attempt_id)
        free = max(0, _holds(asks, node) - others)
        found += free - free % int(asks["ranks_per_node"])  # a pod is of so many
    return found


def _may_take(asks: Mapping[str, Any], node: Object) -> bool:
    labels = node["metadata"].get("labels") or {}
    taints = ((node.get("spec") or {}).get("taints")) or ()
    hostile = [taint for taint in taints if taint.get("effect") in _KEEPS_OUT]
    return asks["labels"].items() <= labels.items() and all(
        any(_tolerates(toleration, taint) for toleration in asks["tolerations"]) for taint in hostile
    )


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    return (
        toleration.get("key") in (None, taint["key"])
        and toleration.get("effect") in (None, taint["effect"])
        and (toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", ""))
    )


def _holds(asks: Mapping[str, Any], node: Object) -> int:
    """Ranks, were it empty."""
    offered = (node.get("status") or {}).get("allocatable") or {}
    each = {"cpu": asks["cpus"], "memory": asks["memory"], GPU: asks["gpus"]}
    return min((int(amount(offered.get(name, 0)) / one + 1e-9) for name, one in each.items() if one), default=0)
