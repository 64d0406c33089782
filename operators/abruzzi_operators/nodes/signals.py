"""What an object of kind Node says about its machine, in words of ours. Pure.

Sources: Kubernetes' well-known taints; node-problem-detector's conditions; conditions of GPU operators and clouds, which have no common names
(AKS GPUMissing, EKS AcceleratedHardwareReady, NVSentinel SysLogsXIDError, Nebius NebiusGPUError), so they are told by pattern.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from abruzzi.contracts.node import FaultKind, NodeCondition, NodeFacts, NodeGpus, NodeTaint
from abruzzi_operators.kubernetes.quantities import amount

Object = Mapping[str, Any]

TAINT_QUARANTINE = "abruzzi.io/quarantine"
TAINT_DRAIN = "abruzzi.io/drain"
OUR_TAINTS = (TAINT_QUARANTINE, TAINT_DRAIN)
DEAD_TAINTS = {
    "node.kubernetes.io/out-of-service": "was taken out of service",
    "node.cloudprovider.kubernetes.io/shutdown": "was shut down",
}
"""Somebody who knows says that nothing runs there any more."""
LEAVING_TAINTS = {
    "ToBeDeletedByClusterAutoscaler": "the cluster autoscaler removes it",
    "karpenter.sh/disrupted": "Karpenter removes it",
    "cloud.google.com/impending-node-termination": "the cloud takes it back",
    "aws-node-termination-handler/spot-itn": "the cloud takes it back",
    "aws-node-termination-handler/scheduled-maintenance": "the cloud maintains it",
}
"""It will be taken away soon: there is time to save."""
UNREACHABLE_TAINT = "node.kubernetes.io/unreachable"
DOUBTFUL_TAINTS = {
    "node.kubernetes.io/memory-pressure": "little memory is left",
    "node.kubernetes.io/disk-pressure": "little disk is left",
    "node.kubernetes.io/pid-pressure": "few process ids are left",
    "node.kubernetes.io/network-unavailable": "its network is not set up",
}
_PRESSURE = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")
_KINDS = (
    (FaultKind.GPU, re.compile(r"gpu|xid|nvlink|nvswitch|nvidia|accelerat|infiniband|^IB[A-Z]|ecc", re.IGNORECASE)),
    (FaultKind.DISK, re.compile(r"readonlyfilesystem|diskioerror|storageready|xfsshutdown", re.IGNORECASE)),
    (FaultKind.KERNEL, re.compile(r"kerneldeadlock|kernelready", re.IGNORECASE)),
)
_GOOD_WHEN_TRUE = re.compile(r"(Ready|Healthy|Active|OK)$")
_XID = re.compile(r"xid[^0-9]{0,24}?(?:\([^)]*\)[^0-9]{0,8})?(\d{1,3})(?!\d)", re.IGNORECASE)
APPLICATION_XIDS = frozenset({13, 31, 43, 45})
"""A program's own mistake, or its end (NVIDIA's Xid catalogue): no fault of the card."""
GPU = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True)
class Report:
    """What the cluster says about a node, whenever it said it."""

    ready: str = "True"
    """True, False (the kubelet itself says so) or Unknown (nobody has heard the kubelet for Kubernetes' own patience)."""
    ready_message: str = ""
    dead: str | None = None
    leaving: str | None = None
    sick: tuple[tuple[FaultKind, str], ...] = ()
    """Faults that speak against running anything there: (kind, sentence)."""
    doubts: tuple[str, ...] = ()
    marks: frozenset[str] = frozenset()
    """Which of our taints it has."""
    cordoned: bool = False


def read_report(node: Object) -> Report:
    spec, status = node.get("spec") or {}, node.get("status") or {}
    taints = {taint["key"] for taint in spec.get("taints") or ()}
    conditions = status.get("conditions") or ()
    ready = next(
        (c for c in conditions if c["type"] == "Ready"), {"status": "Unknown", "message": "It never reported."}
    )
    word = "Unknown" if UNREACHABLE_TAINT in taints and ready["status"] == "True" else ready["status"]
    sick, doubts = _faults(conditions)
    doubts += [DOUBTFUL_TAINTS[key] for key in sorted(taints & DOUBTFUL_TAINTS.keys())]
    total, healthy = _gpus(status, "capacity"), _gpus(status, "allocatable")
    if healthy < total:
        doubts.append(f"{total - healthy} of its {total} GPUs are not offered")
    return Report(
        ready=word,
        ready_message=str(ready.get("message") or ready.get("reason") or ""),
        dead=_first(DEAD_TAINTS, taints),
        leaving=_first(LEAVING_TAINTS, taints),
        sick=tuple(sick),
        doubts=tuple(dict.fromkeys(doubts)),
        marks=frozenset(taints & set(OUR_TAINTS)),
        cordoned=bool(spec.get("unschedulable")),
    )


def read_facts(node: Object, topology: Sequence[str], *, gpus_used: int = 0) -> NodeFacts:
    """For people. `topology` are the labels of the pool's levels."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    labels = node["metadata"].get("labels") or {}
    capacity = status.get("capacity") or {}
    return NodeFacts(
        cpus=amount(capacity.get("cpu", 0)),
        memory=int(amount(capacity.get("memory", 0))),
        gpus=NodeGpus(total=_gpus(status, "capacity"), healthy=_gpus(status, "allocatable"), used=gpus_used),
        topology={level: labels[level] for level in topology if level in labels},
        conditions=[_condition(c) for c in status.get("conditions") or ()],
        taints=[_taint(t) for t in spec.get("taints") or ()],
        cordoned=bool(spec.get("unschedulable")),
    )


def fault_kind(condition: Object) -> FaultKind | None:
    """Of a condition that is bad, and of a kind that speaks against the node."""
    if not _is_bad(condition):
        return None
    return next((kind for kind, pattern in _KINDS if pattern.search(condition["type"])), None)


def _faults(conditions: Sequence[Object]) -> tuple[list[tuple[FaultKind, str]], list[str]]:
    sick: list[tuple[FaultKind, str]] = []
    doubts: list[str] = []
    for condition in conditions:
        if condition["type"] == "Ready" or not _is_bad(condition):
            continue
        kind, said = fault_kind(condition), _said(condition)
        if kind is None or (kind is FaultKind.GPU and _is_the_programs(condition)):
            doubts.append(said)
        else:
            sick.append((kind, said))
    return sick, doubts


def _is_bad(condition: Object) -> bool:
    kind, status = condition["type"], condition["status"]
    if kind in _PRESSURE:
        return status == "True"
    # GPU conditions by such names as NVLinkStatusInactive are bad when true; `…Active` alone would be good then.
    good_when_true = bool(_GOOD_WHEN_TRUE.search(kind)) and not kind.lower().endswith("inactive")
    return status == ("False" if good_when_true else "True")


def _is_the_programs(condition: Object) -> bool:
    numbers = {
        int(number) for number in _XID.findall(f"{condition.get('reason') or ''} {condition.get('message') or ''}")
    }
    return bool(numbers) and numbers <= APPLICATION_XIDS


def _said(condition: Object) -> str:
    words = str(condition.get("message") or condition.get("reason") or "").strip().rstrip(".")
    return f"{condition['type']}: {words[:200]}" if words else str(condition["type"])


def _first(known: Mapping[str, str], taints: set[str]) -> str | None:
    return next((said for key, said in known.items() if key in taints), None)


def _gpus(status: Object, key: str) -> int:
    return int(amount((status.get(key) or {}).get(GPU, 0)))


def _condition(condition: Object) -> NodeCondition:
    since = condition.get("lastTransitionTime")
    bad = condition["status"] != "True" if condition["type"] == "Ready" else _is_bad(condition)
    return NodeCondition(
        type=condition["type"],
        status=condition["status"],
        reason=str(condition.get("reason") or ""),
        message=str(condition.get("message") or ""),
        since=datetime.fromisoformat(since) if since else None,
        is_bad=bad,
    )


def _taint(taint: Object) -> NodeTaint:
    return NodeTaint(
        key=taint["key"],
        value=str(taint.get("value") or ""),
        effect=str(taint.get("effect") or ""),
        is_ours=taint["key"] in OUR_TAINTS,
    )
