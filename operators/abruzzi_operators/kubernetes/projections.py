"""What a reflector keeps of an object: the fields that somebody reads, in the shape of the original, so that 20 000 pods fit into memory.

A pod is about 8 KB of JSON and 25 KB of Python objects; what `pod` keeps of it is about a tenth.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from abruzzi_operators.kubernetes.resources import Object

OWN_PREFIX = "abruzzi.io/"
KEPT_CONDITION = ("type", "status", "reason", "message", "lastTransitionTime")


def pod(thing: Object) -> Object:
    """Identity, node, phase, and how each container stands or ended (with its termination message)."""
    spec, status = thing.get("spec") or {}, thing.get("status") or {}
    kept_status = _some(status, "phase", "reason", "message", "podIP", "hostIP", "startTime")
    kept_status |= _conditions(status)
    for key in ("initContainerStatuses", "containerStatuses"):
        if containers := status.get(key):
            kept_status[key] = [_container(container) for container in containers]
    return {"metadata": metadata(thing), "spec": _some(spec, "nodeName"), "status": kept_status}


def node(thing: Object) -> Object:
    """Identity with all labels, taints, conditions, addresses and what the node offers."""
    spec, status = thing.get("spec") or {}, thing.get("status") or {}
    kept_spec = _some(spec, "unschedulable", "taints")
    kept_status = {**_conditions(status), **_some(status, "addresses", "allocatable", "capacity")}
    return {"metadata": metadata(thing), "spec": _interned(kept_spec), "status": _interned(kept_status)}


def lease(thing: Object) -> Object:
    """Identity, and when it was renewed by its holder's clock."""
    return {"metadata": _some(thing["metadata"], "name"), "spec": _some(thing.get("spec") or {}, "renewTime")}


def event(thing: Object) -> Object:
    """What happened to which object."""
    return {"metadata": _some(thing["metadata"], "name"), "involvedObject": _some(thing["involvedObject"], "kind", "name"), **_some(thing, "reason", "message")}  # fmt: skip


def workload(thing: Object) -> Object:
    """For Job, PyTorchJob, TrainJob, RayJob, Kueue's Workload: identity, whether it is suspended, and the whole status."""
    spec = thing.get("spec") or {}
    return {
        "metadata": metadata(thing),
        "spec": _some(spec, "suspend", "queueName", "active", "priority"),
        "status": _interned(thing.get("status") or {}),
    }


def metadata(thing: Object) -> Object:
    """Without managedFields, and of the annotations only our own."""
    whole = thing["metadata"]
    kept = _some(
        whole, "name", "namespace", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "finalizers"
    )
    if labels := whole.get("labels"):
        kept["labels"] = _interned(labels)
    if annotations := {
        key: value for key, value in (whole.get("annotations") or {}).items() if key.startswith(OWN_PREFIX)
    }:
        kept["annotations"] = _interned(annotations)
    if owners := whole.get("ownerReferences"):
        kept["ownerReferences"] = [_some(owner, "kind", "name", "uid") for owner in owners]
    return kept


def _container(status: Mapping[str, Any]) -> Object:
    kept = _some(status, "name", "ready", "restartCount")
    for key in ("state", "lastState"):
        if state := status.get(key):
            kept[key] = {
                sys.intern(how): _interned({k: v for k, v in detail.items() if k != "containerID"})
                for how, detail in state.items()
            }
    return kept


def _conditions(status: Mapping[str, Any]) -> Object:
    conditions = status.get("conditions")
    return {"conditions": [_some(condition, *KEPT_CONDITION) for condition in conditions]} if conditions else {}


def _some(thing: Mapping[str, Any], *keys: str) -> Object:
    return {key: _text(thing[key]) for key in keys if thing.get(key) is not None}


def _interned(value: Any) -> Any:
    """A copy whose keys and short texts are shared with all others of the same content."""
    if isinstance(value, dict):
        return {sys.intern(key): _interned(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_interned(inner) for inner in value]
    return _text(value)


def _text(value: Any) -> Any:
    return sys.intern(value) if isinstance(value, str) and len(value) <= 64 else value
