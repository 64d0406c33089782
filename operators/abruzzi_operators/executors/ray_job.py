"""What a RayJob's own status says. Pure.

How the stage ended is told by the launcher through its head pod; this is for a RayJob whose head said nothing: it is gone, it never was, or its
program failed before the launcher could speak.
`Complete` only says that the job is over, not how (reference: platform.md section 5.4).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from abruzzi.contracts.states import ExitCode
from abruzzi_operators.renderers.names import ANNOTATION_FRAMEWORK, ANNOTATION_NODES, ANNOTATION_RANKS

_EXIT_CODE = re.compile(r"exit code (\d+)")
"""Of Ray's sentence about a job that failed; where the code is a signal's it is negative there, and unknown here."""
_OVER = ("Complete", "Failed", "ValidationFailed")


@dataclass(frozen=True, slots=True)
class RayEnd:
    code: int | None
    reason: str | None


def is_ray(workload: Mapping[str, Any] | None) -> bool:
    annotations = (workload or {}).get("metadata", {}).get("annotations") or {}
    return annotations.get(ANNOTATION_FRAMEWORK) == "ray"


def idle_ranks(workload: Mapping[str, Any] | None) -> frozenset[int]:
    """All but the first: their nodes do its tasks, and nobody may wait for a word of theirs."""
    if not is_ray(workload):
        return frozenset()
    annotations = (workload or {})["metadata"]["annotations"]
    return frozenset(range(1, int(annotations.get(ANNOTATION_NODES, 1)) * int(annotations.get(ANNOTATION_RANKS, 1))))


def has_started(workload: Mapping[str, Any] | None) -> bool:
    """Whether the stage's program was started on its cluster."""
    return _status(workload).get("jobStatus") in ("RUNNING", "SUCCEEDED", "FAILED", "STOPPED")


def ray_verdict(workload: Mapping[str, Any] | None) -> RayEnd | None:
    """None while it is not over, and for every other kind."""
    status = _status(workload)
    if not is_ray(workload) or status.get("jobDeploymentStatus") not in _OVER:
        return None
    if status.get("jobStatus") == "SUCCEEDED":
        return RayEnd(int(ExitCode.OK), None)
    told = " ".join(str(status.get("message") or status.get("reason") or "no reason given").split())
    if status["jobDeploymentStatus"] == "ValidationFailed":
        return RayEnd(int(ExitCode.USER_ERROR), f"KubeRay can't take this RayJob: {told[:300].rstrip('.')}.")
    found = _EXIT_CODE.search(told)
    return RayEnd(int(found[1]) if found else None, f"Its RayJob failed: {_both_ends(told).rstrip('.')}.")


def _both_ends(told: str) -> str:
    """Ray's sentence, and the last of the program's lines that it repeats: that is where an exception says what it is."""
    first, last = 150, 250
    return told if len(told) <= first + last else f"{told[:first]} … {told[-last:]}"


def _status(workload: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return (workload or {}).get("status") or {}
