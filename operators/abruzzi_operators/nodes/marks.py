"""Our taints on a node, and a cordon beside them. What others have put there stays theirs. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from abruzzi_operators.nodes.signals import OUR_TAINTS

Object = Mapping[str, Any]

ANNOTATION_CORDONED = "abruzzi.io/cordoned"
"""`true`: the cordon is ours, so that we may lift it."""


def mark_patch(node: Object, marks: Collection[str]) -> dict[str, Any] | None:
    """A merge patch that holds only for the node as it was read; None: it has what it should have."""
    spec = node.get("spec") or {}
    taints = list(spec.get("taints") or ())
    annotations = node["metadata"].get("annotations") or {}
    cordoned, ours = bool(spec.get("unschedulable")), annotations.get(ANNOTATION_CORDONED) == "true"
    has = {taint["key"] for taint in taints if taint["key"] in OUR_TAINTS}
    change: dict[str, Any] = {}
    if has != set(marks):
        kept = [taint for taint in taints if taint["key"] not in OUR_TAINTS or taint["key"] in marks]
        # A list is replaced as a whole: the version keeps taints that somebody else sets meanwhile.
        change["taints"] = kept + [{"key": key, "effect": "NoSchedule"} for key in sorted(set(marks) - has)]
    lifts = not marks and ours
    if marks and not cordoned:
        change["unschedulable"] = True
    elif lifts and cordoned:
        change["unschedulable"] = None
    if not change and not lifts:
        return None
    patch: dict[str, Any] = {"metadata": {"resourceVersion": node["metadata"]["resourceVersion"]}, "spec": change}
    if "unschedulable" in change or lifts:
        patch["metadata"]["annotations"] = {ANNOTATION_CORDONED: "true" if marks else None}
    return patch
